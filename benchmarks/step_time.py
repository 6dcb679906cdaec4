"""Seconds of a training step for baseline, DSL and DHM, interleaved, and the price of mimicking over deep supervision.

    python benchmarks/step_time.py [--arch resnet32] [--triples 30] [--threads 2] [--batch-size 128] [--image-size 32]
        [--accelerator cuda] [--precision bf16-mixed] [--contiguous]

Each triple measures one step of each method, in random order, so that a busy machine slows all three alike; the ratio
DHM / DSL is taken within a triple and its median bootstrapped. On a GPU the memory of a step stands beside its time:
what it allocates at most on top of weights, momenta and images.
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
from dhm.training.parallel import connect
from dhm.training.step import Trainer, prepare

METHODS = ("baseline", "dsl", "dhm")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--arch", default="resnet32")
    options.add_argument("--triples", type=int, default=30)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--image-size", type=int, default=32)
    options.add_argument("--accelerator", default="cpu")
    options.add_argument("--precision", default="32-true")
    options.add_argument("--contiguous", action="store_true", help="without the channels-last layout that runs have")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    trainers, batches = {}, {}
    for method in METHODS:
        config = Config(
            arch=given.arch, method=method, image_size=given.image_size, batch_size=given.batch_size, epochs=1000,
            precision=given.precision,
        )  # fmt: skip
        trainers[method] = prepare(config, connect(given.accelerator, config.precision))
        if given.contiguous:
            trainers[method].net.to(memory_format=torch.contiguous_format)
        trainers[method].net.train()
        batches[method] = endless(trainers[method])
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    waiting: dict[str, list[float]] = {method: [] for method in METHODS}
    memory = dict.fromkeys(METHODS, 0)
    cuda = trainers["dhm"].fabric.device.type == "cuda"
    for triple in range(-3, given.triples):  # the first three warm up
        for method in np.random.default_rng(triple + 3).permutation(METHODS):
            start = time.perf_counter()
            images, labels = next(batches[method])
            images = images.contiguous() if given.contiguous else images
            fetched = time.perf_counter()
            if cuda:
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            trainers[method].step(0, max(triple, 0), images, labels)
            if cuda:
                torch.cuda.synchronize()
            if triple >= 0:
                seconds[method].append(time.perf_counter() - start)
                waiting[method].append(fetched - start)
                if cuda:
                    memory[method] = max(memory[method], torch.cuda.max_memory_allocated() - held)
    layout = "contiguous" if given.contiguous else "channels last"
    print(f"{given.arch}, batch {given.batch_size}, {given.image_size} x {given.image_size}, {given.threads} threads, "
          f"{given.precision}, {layout}, {given.triples} triples")  # fmt: skip
    for method in METHODS:
        median, share = np.median(seconds[method]), np.sum(waiting[method]) / np.sum(seconds[method])
        most = f", {memory[method] / 2**20:.0f} MiB" if cuda else ""
        print(f"  {method:<9} median {1000 * median:7.1f} ms a step, data {100 * share:.1f}%{most}")
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
