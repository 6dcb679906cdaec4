"""Seconds of the processor until this package is imported and its commands have answered, over torch's own.

    python benchmarks/start.py [--rounds 10] [--before FOLDER]

Each is a process of its own, by turns. FOLDER is another checkout, to be compared with this one.
"""

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ratios import interleaved, ratio

from dhm import paths

BARE = "torch and torchvision"


def process(*words: str, checkout: Path) -> Callable[[], object]:
    """A python that finds the package in a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    return lambda: subprocess.run(
        [sys.executable, *words], check=True, env=environment, cwd=checkout, stdout=subprocess.DEVNULL
    )


def of_children() -> float:
    """Seconds of the processor that ended processes of this one have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--rounds", type=int, default=10)
    command.add_argument("--before", type=Path, metavar="FOLDER")
    given = command.parse_args()
    checkouts = {"": paths.root(), **({", before": given.before.resolve()} if given.before else {})}
    ways = {BARE: process("-c", "import torch, torchvision", checkout=paths.root())}
    for when, checkout in checkouts.items():
        ways[f"import dhm{when}"] = process("-c", "import torch, torchvision, dhm", checkout=checkout)
        ways[f"dhm list{when}"] = process("-m", "dhm", "list", checkout=checkout)
        ways[f"dhm --help{when}"] = process("-m", "dhm", "--help", checkout=checkout)
    seconds = interleaved(ways, given.rounds, of_children, warm_up=1)
    print(f"{BARE}: {np.median(seconds[BARE]):.2f} s\n\n| | on top of it | ratio |\n|---|---:|---|")
    for way in list(ways)[1:]:
        print(f"| {way} | {np.median(seconds[way] - seconds[BARE]):+.2f} s | {ratio(seconds, way, BARE)} |")


if __name__ == "__main__":
    main()
