"""What may be concluded: Welch intervals of gains, Holm over a table, and the words for the outcome."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from dhm.analysis.variants import spoken

LEVEL = 0.05


@dataclass(frozen=True)
class Sample:
    """Mean, standard deviation (n - 1 in the denominator) and number of runs."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sample":
        """The sample of some runs' figures; the deviation of a single run is NaN."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.n == 1 else f"{self.mean:.2f} ± {self.std:.2f} (n={self.n})"


@dataclass(frozen=True)
class Gain:
    """How much lower the second error is than the first, in points.

    Attributes:
        label: the row of the table.
        value: mean of the first minus mean of the second.
        low, high: Welch interval at `confidence`; infinite where a side has a single run.
        p: two-sided Welch p-value, NaN likewise.
        confidence: of the interval; `holm` raises it to what its procedure leaves the row.
        adjusted_p: by Holm over the table.
    """

    label: str
    value: float
    low: float
    high: float
    p: float
    first: Sample
    second: Sample
    confidence: float = 1 - LEVEL
    adjusted_p: float = math.nan


def welch(label: str, first: Sample, second: Sample, confidence: float = 1 - LEVEL) -> Gain:
    """Gain of `second` over `first` with Welch's unequal-variance interval."""
    value = first.mean - second.mean
    if first.n < 2 or second.n < 2:
        return Gain(label, value, -math.inf, math.inf, math.nan, first, second, confidence)
    a, b = first.std**2 / first.n, second.std**2 / second.n
    p = float(stats.ttest_ind_from_stats(*_plain(first), *_plain(second), equal_var=False).pvalue)
    if a + b == 0:
        return Gain(label, value, value, value, float(value == 0), first, second, confidence)
    freedom = (a + b) ** 2 / (a**2 / (first.n - 1) + b**2 / (second.n - 1))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(a + b)
    return Gain(label, value, value - half, value + half, p, first, second, confidence)


def _plain(sample: Sample) -> tuple[float, float, int]:
    return sample.mean, sample.std, sample.n


def holm(gains: Sequence[Gain], level: float = LEVEL) -> list[Gain]:
    """The rows of one table, with Holm's adjusted p-values and intervals at the level the procedure leaves each row.

    Sorted by p, the i-th of m rows (from 0) is tested at level / (m - i), as long as all before it were rejected;
    from the first that is not, all are shown at that row's level. So an interval excludes 0 exactly where Holm
    rejects. Rows without a p-value (a single run) do not count toward m.
    """
    tested = [i for i, gain in enumerate(gains) if not math.isnan(gain.p)]
    result = list(gains)
    if not tested:
        return result
    adjusted = multipletests([gains[i].p for i in tested], alpha=level, method="holm")[1]
    order = sorted(range(len(tested)), key=lambda k: gains[tested[k]].p)
    share, stopped = level / len(tested), False
    for step, k in enumerate(order):
        if not stopped:
            share = level / (len(tested) - step)
            stopped = gains[tested[k]].p > share
        row = gains[tested[k]]
        widened = welch(row.label, row.first, row.second, 1 - share)
        result[tested[k]] = replace(widened, adjusted_p=float(adjusted[k]))
    return result


def verdict(gain: Gain, paper_gain: float | None, same_data: bool, seeds: int) -> str:
    """One of the words of the protocol for a row.

    On the paper's data set: "reproduced" (the adjusted lower bound is above 0), "contradicted" (the upper bound is
    below half of the paper's gain). On other data: "supported elsewhere", "not supported elsewhere". Otherwise
    "inconclusive"; with fewer than `seeds` runs "incomplete"; a single run can only "agree" or "disagree in sign".
    """
    fewest = min(gain.first.n, gain.second.n)
    if fewest == 0:
        return "not run"
    if fewest == 1:
        return ("agrees" if gain.value > 0 else "disagrees") + " in sign (one run)"
    if fewest < seeds:
        return f"incomplete ({fewest} of {seeds} seeds)"
    if gain.low > 0:
        return "reproduced" if same_data else "supported elsewhere"
    if paper_gain is not None and gain.high < paper_gain / 2:
        return "contradicted" if same_data else "not supported elsewhere"
    return "inconclusive"


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test of two classifiers on the same images.

    It speaks of the choice of test images alone: were a training repeated with another seed, both counts would change.

    Args:
        only_first, only_second: images that one gets wrong and the other right.
    """
    if only_first + only_second == 0:
        return 1.0
    table = [[0, only_first], [only_second, 0]]
    return float(contingency_tables.mcnemar(table, exact=True).pvalue)


COMPARISONS = (("baseline", "dhm"), ("baseline", "dsl"), ("dsl", "dhm"))
"""(first, second) of the comparisons the paper makes; a gain is first minus second."""


def label(network: str, first: str, second: str) -> str:
    """Name of a comparison's row."""
    return f"{network}: {spoken(second)} over {spoken(first)}"
