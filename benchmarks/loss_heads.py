"""The loss over the number of classifiers: cross-entropies alone, and with all pairs mimicking.

python benchmarks/loss_heads.py [--batch-size 128] [--classes 100] [--rounds 100]
"""

import argparse
import time
from collections.abc import Callable

import torch
from ratios import Ratio, interleaved, ratio

import dhm

HEADS = range(1, 9)


def ways(batch_size: int, classes: int) -> dict[str, Callable[[], object]]:
    """Loss and gradients of the logits of so many classifiers under each method."""
    draw = torch.Generator().manual_seed(0)
    target = torch.randint(classes, (batch_size,), generator=draw)
    logits = [torch.randn(batch_size, classes, generator=draw).requires_grad_() for _ in HEADS]

    def step(method: str, count: int) -> Callable[[], object]:
        loss, given = dhm.DHMLoss(method), {f"B{number}": z for number, z in enumerate(logits[:count])}
        return lambda: torch.autograd.grad(loss(given, target)[0], logits[:count])

    return {f"{method} {count}": step(method, count) for method in ("dsl", "dhm") for count in HEADS}


def measure(batch_size: int = 128, classes: int = 100, rounds: int = 100) -> list[tuple[int, Ratio, Ratio]]:
    """For each number of classifiers what DSL's and DHM's loss take as multiples of one classifier's cross-entropy."""
    seconds = interleaved(ways(batch_size, classes), rounds, time.process_time)
    return [
        (count, *(ratio(seconds, f"{method} {count}", "dsl 1") for method in ("dsl", "dhm"))) for count in HEADS[1:]
    ]


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--batch-size", type=int, default=128)
    command.add_argument("--classes", type=int, default=100)
    command.add_argument("--rounds", type=int, default=100)
    given = command.parse_args()
    print("classifiers: DSL and DHM over the cross-entropy of one")
    for count, dsl, dhm_ in measure(given.batch_size, given.classes, given.rounds):
        print(f"{count}: {dsl}, {dhm_}")


if __name__ == "__main__":
    main()
