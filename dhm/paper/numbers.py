"""The paper's published numbers, each with its place in the text."""

import csv
from dataclasses import dataclass

from dhm import paths

PAPER_SEEDS = 5
"""Runs behind each mean and standard deviation on CIFAR-100 (section 4.1.1)."""


@dataclass(frozen=True)
class Number:
    """One printed number.

    Attributes:
        network: our name of the network.
        printed: the row as the paper prints it.
        method: "baseline", "dsl", "dhm".
        metric: what was measured, e.g. "top1_error", in percent.
        value: the number; the mean where the paper gives a spread.
        std: standard deviation over runs, None where the paper prints none.
        n: runs behind it.
        source: table, row and column.
    """

    network: str
    printed: str
    method: str
    metric: str
    value: float
    std: float | None
    n: int
    source: str


def table(name: str) -> list[Number]:
    """The numbers of a table, e.g. "table1", in the order of print."""
    with open(paths.embedded(f"paper/{name}.csv"), newline="", encoding="utf-8") as file:
        return [
            Number(
                row["network"], row["printed"], row["method"], row["metric"], float(row["value"]),
                float(row["std"]) if row["std"] else None, int(row["n"]), row["source"],
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip
