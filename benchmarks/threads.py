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
import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy import stats

from dhm import Config
from dhm.flops import training_flops
from dhm.training.parallel import connect
from dhm.training.step import prepare

NETWORKS = {
    "the quick wide ResNet": {"arch": "wrn", "options": {"depth": 10, "width": 1}, "batch_size": 64},
    "the quick ResNet of Table 1": {"options": {"depth": 8}, "batch_size": 64},
    "ResNet-32, 32x32": {"arch": "resnet32", "batch_size": 128, "image_size": 32},
    "ResNet-18, 64x64": {"arch": "resnet18", "batch_size": 32, "image_size": 64},
    "WRN-16-8, 32x32": {"arch": "wrn16_8", "batch_size": 32, "image_size": 32},
    "ResNet-50, 224x224": {"arch": "resnet50", "batch_size": 8, "image_size": 224},
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


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--busy", type=int, default=3, help="processes that want a core each, in the second half")
    command.add_argument("--pairs", type=int, default=10)
    given = command.parse_args()
    counts = (1, len(os.sched_getaffinity(0)))
    print(f"| network | multiply-adds of a step | 1 thread, alone | ratio to {counts[1]}, alone "
          f"| ratio beside {given.busy} busy processes |")  # fmt: skip
    print("|---|---:|---:|---|---|")
    for name, settings in NETWORKS.items():
        config = Config(method="dhm", precision="32-true", **settings)
        torch.set_num_threads(counts[1])
        trainer = prepare(config, connect("cpu", config.precision))
        trainer.begin(0)
        images, labels = next(trainer.batches(0))
        cells = []
        for others in (0, given.busy):
            with busy(others):
                seconds: dict[int, list[float]] = {count: [] for count in counts}
                for pair in range(-1, given.pairs):
                    for count in np.random.default_rng(pair + 1).permutation(counts):
                        torch.set_num_threads(int(count))
                        start = time.perf_counter()
                        trainer.step(0, max(pair, 0), images, labels)
                        if pair >= 0:
                            seconds[int(count)].append(time.perf_counter() - start)
            ratios = np.divide(*(seconds[count] for count in counts))
            low, high = stats.bootstrap((ratios,), np.median, n_resamples=10_000, rng=0).confidence_interval
            cells.append((np.median(seconds[1]), f"{np.median(ratios):.2f} ({low:.2f} to {high:.2f})"))
        work = training_flops(config) * len(labels)
        print(
            f"| {name} | {work / 1e9:.1f} G | {1000 * cells[0][0]:.0f} ms | {cells[0][1]} | {cells[1][1]} |", flush=True
        )


if __name__ == "__main__":
    main()
