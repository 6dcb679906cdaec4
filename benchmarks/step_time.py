"""Seconds of a training step for baseline, DSL and DHM, interleaved, and the price of mimicking over deep supervision.

    python benchmarks/step_time.py [--arch resnet32] [--triples 30] [--threads 2] [--batch-size 128] [--image-size 32]

Each triple measures one step of each method, in random order, so that a busy machine slows all three alike; the ratio
DHM / DSL is taken within a triple and its median bootstrapped.
"""

import argparse
import itertools
import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy import stats

from dhm import Config
from dhm.data.images import Batch
from dhm.parallel import connect
from dhm.trainer import Trainer, prepare

METHODS = ("baseline", "dsl", "dhm")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--arch", default="resnet32")
    options.add_argument("--triples", type=int, default=30)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--image-size", type=int, default=32)
    options.add_argument("--accelerator", default="cpu")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    trainers, batches = {}, {}
    for method in METHODS:
        config = Config(
            arch=given.arch, method=method, image_size=given.image_size, batch_size=given.batch_size, epochs=1000
        )
        trainers[method] = prepare(config, connect(given.accelerator, config.precision))
        trainers[method].net.train()
        batches[method] = endless(trainers[method])
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    waiting: dict[str, list[float]] = {method: [] for method in METHODS}
    for triple in range(-3, given.triples):  # the first three warm up
        for method in np.random.default_rng(triple + 3).permutation(METHODS):
            start = time.perf_counter()
            images, labels = next(batches[method])
            fetched = time.perf_counter()
            trainers[method].step(0, max(triple, 0), images, labels)
            if trainers[method].fabric.device.type == "cuda":
                torch.cuda.synchronize()
            if triple >= 0:
                seconds[method].append(time.perf_counter() - start)
                waiting[method].append(fetched - start)
    print(f"{given.arch}, batch {given.batch_size}, {given.image_size} x {given.image_size}, {given.threads} threads, "
          f"{given.triples} triples")  # fmt: skip
    for method in METHODS:
        median, share = np.median(seconds[method]), np.sum(waiting[method]) / np.sum(seconds[method])
        print(f"  {method:<9} median {1000 * median:7.1f} ms a step, data {100 * share:.1f}%")
    for first, second in (("dhm", "dsl"), ("dsl", "baseline")):
        ratios = np.array(seconds[first]) / np.array(seconds[second])
        low, high = stats.bootstrap((ratios,), np.median, n_resamples=10_000, rng=0).confidence_interval
        print(f"  {first} / {second}: median {np.median(ratios):.4f}, 95% bootstrap [{low:.4f}, {high:.4f}]")


def endless(trainer: Trainer) -> Iterator[Batch]:
    """Batches epoch after epoch."""
    for epoch in itertools.count():
        yield from trainer.batches(epoch)


if __name__ == "__main__":
    main()
