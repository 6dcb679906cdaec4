"""Two treatments crossed: whether one gains as much with the other as without it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from dhm.analysis.statistics import LEVEL, Difference, Sample, Samples, interval, networks_of

GAIN = ("baseline", "dhm")
"""Whose gain is crossed: of the second over the first."""


@dataclass(frozen=True)
class Interaction(Difference):
    """How much larger a gain is under a second treatment than without it.

    Attributes:
        without, under: the gain without the second treatment, and under it, in points.
    """

    without: float
    under: float

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{self.value:+.2f} (single runs, no interval)"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}], p = {self.p:.3g}"

    @property
    def word(self) -> str:
        """ "larger", "smaller" or "not told apart", by whether the interval excludes 0."""
        return "larger" if self.low > 0 else "smaller" if self.high < 0 else "not told apart"


def interaction(label: str, without: tuple[Sample, Sample], under: tuple[Sample, Sample]) -> Interaction:
    """The difference of two gains, each first minus second, with Welch's interval over all four cells."""
    gains = without[0].mean - without[1].mean, under[0].mean - under[1].mean
    value = gains[1] - gains[0]
    return Interaction(label, value, *interval(value, (*without, *under), LEVEL), *gains)


def without_dropout(network: str) -> str:
    """The name of the same network without dropout."""
    return re.sub(r"_dropout[\d.]+", "", network)


def crossed(source: Samples, without: Callable[[str], str]) -> list[Interaction]:
    """The interaction of `GAIN` with what distinguishes a network's row from another's, where all four cells are there.

    Args:
        without: from a row's network to that of the row without the second treatment; the same where it has none.
    """
    return [
        replace(between(source, plain, network), label=network)
        for network, plain in ((network, without(network)) for network in networks_of(source))
        if network != plain and {(name, method) for name in (network, plain) for method in GAIN} <= source.keys()
    ]


def between(source: Samples, network: str, other: str) -> Interaction:
    """How much larger `GAIN` is in the other network's row than in a network's."""
    first, second = GAIN
    without, under = ((source[name, first], source[name, second]) for name in (network, other))
    return interaction(f"{other} against {network}", without, under)


def table(found: Mapping[str, Sequence[Interaction]]) -> pd.DataFrame:
    """Interactions of several sources under each other."""
    rows = {
        (title, each.label): {
            "gain without": f"{each.without:+.2f}", "gain under": f"{each.under:+.2f}", "difference": str(each),
            "the gain is": each.word,
        }
        for title, interactions in found.items()
        for each in interactions
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["source", "under"] if rows else None)
