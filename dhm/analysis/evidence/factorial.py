"""Two treatments crossed: whether one gains as much with the other as without it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from scipy import stats

from dhm.analysis.statistics import LEVEL, Sample, Samples


@dataclass(frozen=True)
class Interaction:
    """How much larger a gain is under a second treatment than without it, in points.

    Attributes:
        without, under: the gain without the second treatment, and under it.
        low, high: interval of their difference at `confidence`; infinite where a cell has a single run.
        p: two-sided p-value of no difference, NaN likewise.
    """

    label: str
    without: float
    under: float
    low: float
    high: float
    p: float
    confidence: float = 1 - LEVEL

    @property
    def value(self) -> float:
        """The difference of the two gains."""
        return self.under - self.without

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{self.value:+.2f} (single runs, no interval)"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}], p = {self.p:.3g}"

    @property
    def word(self) -> str:
        """ "larger", "smaller" or "not told apart", by whether the interval excludes 0."""
        return "larger" if self.low > 0 else "smaller" if self.high < 0 else "not told apart"


def interaction(
    label: str, without: tuple[Sample, Sample], under: tuple[Sample, Sample], confidence: float = 1 - LEVEL
) -> Interaction:
    """The difference of two gains, each first minus second, with Welch's interval over all four cells.

    The variance is the sum of the cells' s^2 / n, the degrees of freedom are Satterthwaite's; no equal variances are
    assumed.
    """
    cells = (*without, *under)
    gains = without[0].mean - without[1].mean, under[0].mean - under[1].mean
    if min(cell.n for cell in cells) < 2:
        return Interaction(label, *gains, -math.inf, math.inf, math.nan, confidence)
    parts = [cell.std**2 / cell.n for cell in cells]
    value, error = gains[1] - gains[0], math.sqrt(sum(parts))
    if error == 0:
        return Interaction(label, *gains, value, value, float(value == 0), confidence)
    freedom = sum(parts) ** 2 / sum(part**2 / (cell.n - 1) for part, cell in zip(parts, cells, strict=True))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return Interaction(label, *gains, value - half, value + half, p, confidence)


def without_dropout(network: str) -> str:
    """The name of the same network without dropout."""
    return re.sub(r"_dropout[\d.]+", "", network)


def crossed(
    source: Samples, without: Callable[[str], str], first: str = "baseline", second: str = "dhm"
) -> list[Interaction]:
    """The interaction of a gain with what distinguishes a network's row from another's, where all four cells are there.

    Args:
        without: from a row's network to that of the row without the second treatment; the same where it has none.
    """
    rows = [(network, without(network)) for network in dict.fromkeys(network for network, _ in source)]
    return [
        replace(between(source, plain, network, first, second), label=network)
        for network, plain in rows
        if network != plain and {(name, m) for name in (network, plain) for m in (first, second)} <= source.keys()
    ]


def between(source: Samples, network: str, other: str, first: str = "baseline", second: str = "dhm") -> Interaction:
    """How much larger a gain is in the other network's row than in a network's."""
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
    if not rows:
        return pd.DataFrame()
    out = pd.DataFrame.from_dict(rows, orient="index")
    out.index = pd.MultiIndex.from_tuples(rows, names=["source", "under"])
    return out
