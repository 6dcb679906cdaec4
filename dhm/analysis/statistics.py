"""What may be concluded: Welch intervals of gains, Holm over a table, equivalence of figures, and the words for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from dhm.analysis.variants import spoken

LEVEL = 0.05
MARGIN = 0.5
"""Points within which two error rates count as the same: about twice the median spread of the runs in Table 1."""


@dataclass(frozen=True)
class Sample:
    """Mean, standard deviation (n - 1 in the denominator) and number of runs."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sample":
        """The sample of some runs' figures; the deviation of a single run is NaN, and so is the mean of none."""
        mean = float(np.mean(values)) if len(values) else math.nan
        return cls(mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, len(values))

    def interval(self, confidence: float = 1 - LEVEL) -> tuple[float, float]:
        """Of the mean, by Student's t; infinite for fewer than two runs."""
        if self.n < 2:
            return -math.inf, math.inf
        half = float(stats.t.ppf((1 + confidence) / 2, self.n - 1)) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def prediction(self, confidence: float = 1 - LEVEL) -> tuple[float, float]:
        """Where one more run would fall, mean ± t(n - 1) s sqrt(1 + 1/n); infinite for fewer than two runs."""
        if self.n < 2:
            return -math.inf, math.inf
        half = float(stats.t.ppf((1 + confidence) / 2, self.n - 1)) * self.std * math.sqrt(1 + 1 / self.n)
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        if self.n == 0:
            return "–"
        return f"{self.mean:.2f}" if self.n == 1 else f"{self.mean:.2f} ± {self.std:.2f} (n={self.n})"


Samples = dict[tuple[str, str], Sample]
"""(network, variant) -> errors over seeds; a variant is a method, or one of `dhm.analysis.variants`."""


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

    def mirrored(self) -> "Gain":
        """The gain of the first over the second."""
        turned = replace(self, value=-self.value, low=-self.high, high=-self.low)
        return replace(turned, first=self.second, second=self.first)


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


def holm(gains: Sequence[Gain], planned: int = 0, level: float = LEVEL) -> list[Gain]:
    """The rows of one table, with Holm's adjusted p-values and intervals at the level the procedure leaves each row.

    Sorted by p, the i-th of m rows (from 0) is tested at level / (m - i), as long as all before it were rejected;
    from the first that is not, all are shown at that row's level. So an interval excludes 0 exactly where Holm
    rejects. Rows without a p-value (a single run) do not count toward m.

    Args:
        planned: rows the table will have when all of its runs are done; those to come count toward m as if they
            were not rejected, so that a row that is decided stays so.
    """
    tested = [i for i, gain in enumerate(gains) if not math.isnan(gain.p)]
    result = list(gains)
    if not tested:
        return result
    m = max(planned, len(tested))
    p = [gains[i].p for i in tested]
    adjusted = multipletests(p + [1.0] * (m - len(p)), alpha=level, method="holm")[1]
    order = sorted(range(len(tested)), key=lambda k: p[k])
    share, stopped = level / m, False
    for step, k in enumerate(order):
        if not stopped:
            share = level / (m - step)
            stopped = gains[tested[k]].p > share
        row = gains[tested[k]]
        widened = welch(row.label, row.first, row.second, 1 - share)
        result[tested[k]] = replace(widened, adjusted_p=float(adjusted[k]))
    return result


def verdict(
    gain: Gain, paper_gain: float | None, same_data: bool, seeds: int, at_least: float | None = None
) -> str:  # fmt: skip
    """One of the words of the protocol for a row, see `word`."""
    fewest = min(gain.first.n, gain.second.n)
    return word(gain.value, gain.low, gain.high, fewest, paper_gain, same_data, seeds, at_least)


def word(
    value: float, low: float, high: float, fewest: int, paper_gain: float | None, same_data: bool, seeds: int,
    at_least: float | None = None,
) -> str:  # fmt: skip
    """What a gain and its adjusted interval come to.

    On the paper's data set: "reproduced" (the lower bound is above 0), "contradicted" (the upper bound is below half
    of the paper's gain). On other data: "supported elsewhere", "not supported elsewhere". Otherwise "inconclusive";
    with fewer than `seeds` runs "incomplete"; a single run can only "agree" or "disagree in sign", if the paper
    has one.

    Where the paper prints a loss, the loss is what is to be reproduced. Where it prints neither, the interval must lie
    within `MARGIN` of 0, and one that leaves out 0 otherwise contradicts.

    Args:
        fewest: runs on the side that has fewer.
        at_least: the gain that is claimed, if more or less than any; an interval above it reproduces, one below it
            contradicts, whatever the paper's own gain.
    """
    if fewest == 0:
        return "not run"
    if at_least is None and paper_gain is not None and paper_gain < 0:
        return word(-value, -high, -low, fewest, -paper_gain, same_data, seeds)
    if fewest == 1:
        if paper_gain is None and at_least is None:
            return "one run"
        if at_least:
            return f"{'agrees' if value > at_least else 'falls short'} (one run)"
        tie = abs(value) <= (MARGIN if paper_gain == 0 else 0)
        told = "is a tie" if tie else f"{'agrees' if value > 0 and paper_gain != 0 else 'disagrees'} in sign"
        return f"{told} (one run)"
    if fewest < seeds:
        return f"incomplete ({fewest} of {seeds} seeds)"
    if at_least is not None:
        holds, fails = low > at_least, high < at_least
    elif paper_gain == 0:
        holds = low > -MARGIN and high < MARGIN
        fails = low > 0 or high < 0
    else:
        holds, fails = low > 0, paper_gain is not None and high < paper_gain / 2
    if holds:
        return "reproduced" if same_data else "supported elsewhere"
    if fails:
        return "contradicted" if same_data else "not supported elsewhere"
    return "inconclusive"


@dataclass(frozen=True)
class Equivalence:
    """Whether a figure of ours is the printed one, by two one-sided Welch tests (TOST, Schuirmann 1987).

    Attributes:
        difference: ours minus the paper's, in points.
        low, high: interval of the difference at 1 - 2 level; inside the margin exactly where the test concludes.
        p: of the hypothesis that they differ by the margin or more; small means the same.
    """

    difference: float
    low: float
    high: float
    p: float
    margin: float

    def word(self, level: float = LEVEL) -> str:
        """ "the same" within the margin, "different" where the interval leaves out 0, or "undecided"."""
        if self.p <= level:
            return f"the same within {self.margin:g}"
        return "undecided" if self.low <= 0 <= self.high else "different"


def tost(ours: Sample, printed: Sample, margin: float = MARGIN, level: float = LEVEL) -> Equivalence | None:
    """Equivalence of two figures, both with the error of their own runs; None where a side has a single run."""
    if ours.n < 2 or printed.n < 2:
        return None
    mean, std, n = _plain(printed)
    sides = (
        stats.ttest_ind_from_stats(
            *_plain(ours), mean + shift, std, n, equal_var=False, alternative="greater" if shift < 0 else "less"
        ).pvalue
        for shift in (-margin, margin)
    )
    gap = welch("", ours, printed, 1 - 2 * level)
    return Equivalence(gap.value, gap.low, gap.high, float(max(sides)), margin)


def power(gain: float, std: float, seeds: int, level: float = LEVEL) -> float:
    """Chance that a gain is told from none by `seeds` runs on each side, if both spread by `std`.

    Of the two-sided t-test with equal variances, which Welch's all but equals for equal samples. In a table of m rows
    Holm leaves a single true gain a level of 5 % / m.
    """
    if std == 0:
        return float(gain != 0)
    freedom, shift = 2 * seeds - 2, abs(gain) / std * math.sqrt(seeds / 2)
    edge = float(stats.t.isf(level / 2, freedom))
    near, far = stats.nct.sf(edge, freedom, shift), stats.nct.cdf(-edge, freedom, shift)
    # where a tail is 1 or 0 to all digits, scipy's series may give no number
    return (1.0 if math.isnan(near) else float(near)) + (0.0 if math.isnan(far) else float(far))


def seeds_needed(gain: float, std: float, wanted: float = 0.8, level: float = LEVEL, most: int = 1000) -> int | None:
    """The fewest runs on each side that tell a gain with that chance; None if `most` do not."""
    return next((n for n in range(2, most + 1) if power(gain, std, n, level) >= wanted), None)


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


def above_chance(percent: float, images: int, classes: int, level: float = 0.01) -> bool:
    """Whether an accuracy on so many images is beyond guessing among the classes, by the binomial test."""
    right = round(percent * images / 100)
    return bool(stats.binomtest(right, images, 1 / classes, "greater").pvalue < level)


COMPARISONS = (("baseline", "dhm"), ("baseline", "dsl"), ("dsl", "dhm"))
"""(first, second) of the comparisons the paper makes; a gain is first minus second."""


def label(network: str, first: str, second: str) -> str:
    """Name of a comparison's row."""
    return f"{network}: {spoken(second)} over {spoken(first)}"


def p_word(value: float) -> str:
    """A p-value in four decimals."""
    return "–" if value != value else "< 0.0001" if value < 1e-4 else f"{value:.4f}"
