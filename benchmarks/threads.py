"""Seconds of a training step with one thread and with all cores', alone and beside other busy processes.

    python benchmarks/threads.py [--busy 3] [--pairs 10]

Each pair measures a step with one thread and one with a thread for every core, in random order in one process; the
ratio of the two is taken within a pair and its median bootstrapped. `dhm.training.threads` rests on this table.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from ratios import Ratio, interleaved, ratio

from dhm import Config
from dhm.flops import training_flops
from dhm.training.parallel import connect
from dhm.training.step import prepare

NETWORKS: dict[str, dict[str, Any]] = {
    "wide ResNet of the quick preset": {"arch": "wrn", "options": {"depth": 10, "width": 1}, "image_size": 14},
    "the same on 28x28": {"arch": "wrn", "options": {"depth": 10, "width": 1}, "image_size": 28},
    "ResNet-32 on 32x32": {"arch": "resnet32", "image_size": 32, "batch_size": 32},
    "the same, batches of 128": {"arch": "resnet32", "image_size": 32},
    "ResNet-18 on 64x64": {"arch": "resnet18", "image_size": 64, "batch_size": 64},
}
SPIN = "while True: sum(range(10_000_000))"


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many other processes that want a core each."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()


def ways(config: Config, counts: Iterable[int]) -> dict[str, Callable[[], object]]:
    """A step with so many threads."""
    trainer = prepare(config, connect("cpu", config.precision))
    trainer.begin(0)
    images, labels = next(trainer.batches(0))

    def step(count: int) -> Callable[[], object]:
        def run() -> None:
            torch.set_num_threads(count)
            trainer.step(0, 0, images, labels)

        return run

    return {str(count): step(count) for count in counts}


def measure(settings: dict[str, Any], others: int, pairs: int) -> tuple[float, Ratio]:
    """Seconds of a step with one thread, and its ratio to one with a thread for every core, beside so many others."""
    cores = os.cpu_count()
    assert cores
    with busy(others):
        seconds = interleaved(ways(Config(method="dhm", **settings), (1, cores)), pairs, warm_up=1)
    return float(np.median(seconds["1"])), ratio(seconds, "1", str(cores))


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--busy", type=int, default=3, help="processes that want a core each, in the last column")
    command.add_argument("--pairs", type=int, default=10)
    given = command.parse_args()
    print(f"{os.cpu_count()} cores\n")
    print("| network | multiply-adds of a step | one thread | ratio, alone | ratio, beside busy processes |")
    print("|---|---:|---:|---|---|")
    for name, settings in NETWORKS.items():
        seconds, alone = measure(settings, 0, given.pairs)
        _, beside = measure(settings, given.busy, given.pairs)
        config = Config(method="dhm", **settings)
        work = training_flops(config) * config.batch_size
        print(f"| {name} | {work / 1e9:.1f} G | {1000 * seconds:.0f} ms | {alone} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
