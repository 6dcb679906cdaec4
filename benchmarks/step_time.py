"""Seconds of a training step for baseline, DSL and DHM, interleaved, and the price of mimicking over deep supervision.

    python benchmarks/step_time.py [--arch resnet32] [--triples 30] [--threads 2] [--batch-size 128] [--image-size 32]
        [--accelerator cuda] [--precision bf16-mixed] [--tf32] [--contiguous] [--compile]

Each triple measures one step of each method, in random order, so that a busy machine slows all three alike; the ratio
DHM / DSL is taken within a triple and its median bootstrapped. With `--compile` a triple has a captured step of each
method too, for the ratios eager / captured; beside its time stands that of the first, which compiles it.
On a GPU the memory of an eager step stands beside its time: what it allocates at most on top of weights, momenta and
images. Several of these commands at once tell what several runs on one GPU cost each other.
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
CAPTURED = " captured"
WARM_UP = 3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--arch", default="resnet32")
    options.add_argument("--triples", type=int, default=30)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--image-size", type=int, default=32)
    options.add_argument("--accelerator", default="cpu")
    options.add_argument("--precision", default="32-true")
    options.add_argument("--tf32", action="store_true", help="float32 by TensorFloat-32, which runs do not use")
    options.add_argument("--contiguous", action="store_true", help="without the channels-last layout that runs have")
    options.add_argument("--compile", action="store_true", help="captured steps too")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    trainers: dict[str, Trainer] = {}
    for method, captured in itertools.product(METHODS, (False, True) if given.compile else (False,)):
        config = Config(
            arch=given.arch, method=method, image_size=given.image_size, batch_size=given.batch_size, epochs=1000,
            precision=given.precision,
        )  # fmt: skip
        trainer = prepare(config, connect(given.accelerator, config.precision), compile=captured)
        if given.contiguous:
            trainer.net.to(memory_format=torch.contiguous_format)
        trainer.net.train()
        trainers[method + CAPTURED * captured] = trainer
    if given.tf32:
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
    batches = {way: endless(trainer, given.batch_size) for way, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {way: [] for way in trainers}
    waiting: dict[str, list[float]] = {way: [] for way in trainers}
    memory = dict.fromkeys(trainers, 0)
    cuda = trainers["dhm"].fabric.device.type == "cuda"
    for triple in range(given.triples + WARM_UP):
        for way in np.random.default_rng(triple).permutation([*trainers]):
            start = time.perf_counter()
            images, labels = next(batches[way])
            images = images.contiguous() if given.contiguous else images
            fetched = time.perf_counter()
            if cuda:
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            trainers[way].step(0, triple, images, labels)
            if cuda:
                torch.cuda.synchronize()
                if triple >= WARM_UP:
                    memory[way] = max(memory[way], torch.cuda.max_memory_allocated() - held)
            seconds[way].append(time.perf_counter() - start)
            waiting[way].append(fetched - start)
    layout = "contiguous" if given.contiguous else "channels last"
    print(f"{given.arch}, batch {given.batch_size}, {given.image_size} x {given.image_size}, {given.threads} threads, "
          f"{given.precision}{', TF32' * given.tf32}, {layout}, {given.triples} triples")  # fmt: skip
    for way in trainers:
        counted = seconds[way][WARM_UP:]
        median, share = np.median(counted), np.sum(waiting[way][WARM_UP:]) / np.sum(counted)
        if trainers[way].compiled:
            beside = f", the first {seconds[way][0]:.0f} s"
        else:
            beside = f", {memory[way] / 2**20:.0f} MiB" if cuda else ""
        print(f"  {way:<17} median {1000 * median:7.1f} ms a step, data {100 * share:.1f}%{beside}")
    compared = [("dhm", "dsl"), ("dsl", "baseline")]
    if given.compile:
        compared += [(method, method + CAPTURED) for method in METHODS]
    for first, second in compared:
        ratios = np.array(seconds[first][WARM_UP:]) / np.array(seconds[second][WARM_UP:])
        low, high = stats.bootstrap((ratios,), np.median, n_resamples=10_000, rng=0).confidence_interval
        print(f"  {first} / {second}: median {np.median(ratios):.4f}, 95% bootstrap [{low:.4f}, {high:.4f}]")


def endless(trainer: Trainer, size: int) -> Iterator[Batch]:
    """Whole batches epoch after epoch."""
    for epoch in itertools.count():
        yield from (batch for batch in trainer.batches(epoch) if len(batch[1]) == size)


if __name__ == "__main__":
    main()
