"""What may be concluded: Welch intervals of gains, Holm over a table, equivalence of figures, and the words for it."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from scipy import stats

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
        return self._around(confidence, 1 / max(self.n, 1))

    def prediction(self) -> tuple[float, float]:
        """Where one more run would fall, mean ± t(n - 1) s sqrt(1 + 1/n); infinite for fewer than two runs."""
        return self._around(1 - LEVEL, 1 + 1 / max(self.n, 1))

    def _around(self, confidence: float, variance: float) -> tuple[float, float]:
        if self.n < 2:
            return -math.inf, math.inf
        half = float(stats.t.ppf((1 + confidence) / 2, self.n - 1)) * self.std * math.sqrt(variance)
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        if self.n == 0:
            return "–"
        return f"{self.mean:.2f}" if self.n == 1 else f"{self.mean:.2f} ± {self.std:.2f} (n={self.n})"


Samples = dict[tuple[str, str], Sample]
"""(network, variant) -> errors over seeds; a variant is a method, or one of `dhm.analysis.variants`."""


def networks_of(source: Samples) -> list[str]:
    """The networks of a source, each once, in its order."""
    return list(dict.fromkeys(network for network, _ in source))


@dataclass(frozen=True)
class Difference:
    """A difference of means, in points.

    Attributes:
        label: the row of the table.
        low, high: its interval; infinite where a sample has a single run.
        p: two-sided p-value of no difference, NaN likewise.
        fewest: runs of the sample that has fewest.
    """

    label: str
    value: float
    low: float
    high: float
    p: float
    fewest: int


@dataclass(frozen=True)
class Gain(Difference):
    """How much lower the second error is than the first, with Welch's interval, which `holm` widens.

    Attributes:
        adjusted_p: by Holm over the table.
    """

    first: Sample
    second: Sample
    adjusted_p: float = math.nan

    def mirrored(self) -> "Gain":
        """The gain of the first over the second."""
        turned = replace(self, first=self.second, second=self.first)
        return replace(turned, value=-self.value, low=-self.high, high=-self.low)


def interval(value: float, cells: Sequence[Sample], level: float) -> tuple[float, float, float, int]:
    """Low and high end, p-value and fewest runs, as of `Difference`, of a value made of the samples' means, each added
    or subtracted.

    The variance is the sum of the samples' s^2 / n, the degrees of freedom are Satterthwaite's; no equal variances are
    assumed. Of two samples this is Welch's test.
    """
    fewest = min(cell.n for cell in cells)
    if fewest < 2:
        return -math.inf, math.inf, math.nan, fewest
    parts = [cell.std**2 / cell.n for cell in cells]
    error = math.sqrt(sum(parts))
    if error == 0:
        return value, value, float(value == 0), fewest
    freedom = sum(parts) ** 2 / sum(part**2 / (cell.n - 1) for part, cell in zip(parts, cells, strict=True))
    half = float(stats.t.isf(level / 2, freedom)) * error
    return value - half, value + half, 2 * float(stats.t.sf(abs(value) / error, freedom)), fewest


def welch(label: str, first: Sample, second: Sample, level: float = LEVEL) -> Gain:
    """Gain of `second` over `first` with Welch's unequal-variance interval."""
    value = first.mean - second.mean
    return Gain(label, value, *interval(value, (first, second), level), first, second)


def holm(gains: Sequence[Gain], planned: int = 0) -> list[Gain]:
    """The rows of one table, with Holm's adjusted p-values and intervals at the level the procedure leaves each row.

    Sorted by p, the i-th of m rows (from 0) is tested at `LEVEL` / (m - i), as long as all before it were rejected;
    from the first that is not, all are shown at that row's level. So an interval excludes 0 exactly where Holm
    rejects. Rows without a p-value (a single run) do not count toward m.

    Args:
        planned: rows the table will have when all of its runs are done; those to come count toward m as if they
            were not rejected, so that a row that is decided stays so.
    """
    result = list(gains)
    tested = [i for i, gain in enumerate(gains) if not math.isnan(gain.p)]
    if not tested:
        return result
    p = [gains[i].p for i in tested]
    m = max(planned, len(p))
    adjusted = holm_p(p, m)
    rejected = int((adjusted <= LEVEL).sum())
    for i, rank, corrected in zip(tested, stats.rankdata(p, "ordinal") - 1, adjusted, strict=True):
        share = LEVEL / float(m - min(rank, rejected))
        widened = welch(gains[i].label, gains[i].first, gains[i].second, share)
        result[i] = replace(widened, adjusted_p=float(corrected))
    return result


def holm_p(p: Sequence[float], m: int = 0) -> np.ndarray:
    """Holm's adjusted p-values, in the order given: statsmodels' `multipletests`, which takes half a second a call
    because it collects garbage first.

    Args:
        m: p-values there will be; those to come stand behind all others.
    """
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, dtype=float)[order] * (max(m, len(p)) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1.0)
    return adjusted


def verdict(
    gain: Difference, paper_gain: float | None, same_data: bool, seeds: int, at_least: float | None = None
) -> str:
    """What a gain and its adjusted interval come to.

    On the paper's data set: "reproduced" (the lower bound is above 0), "contradicted" (the upper bound is below half
    of the paper's gain). On other data: "supported elsewhere", "not supported elsewhere". Otherwise "inconclusive";
    with fewer than `seeds` runs "incomplete"; a single run can only "agree" or "disagree in sign", if the paper
    has one.

    Where the paper prints a loss, the loss is what is to be reproduced. Where it prints neither, the interval must lie
    within `MARGIN` of 0, and one that leaves out 0 otherwise contradicts.

    Args:
        at_least: the gain that is claimed, if more or less than any; an interval above it reproduces, one below it
            contradicts, whatever the paper's own gain.
    """
    value, low, high = gain.value, gain.low, gain.high
    if gain.fewest == 0:
        return "not run"
    if at_least is None and paper_gain is not None and paper_gain < 0:
        value, low, high, paper_gain = -value, -high, -low, -paper_gain
    if gain.fewest == 1:
        if paper_gain is None and at_least is None:
            return "one run"
        if at_least:
            return f"{'agrees' if value > at_least else 'falls short'} (one run)"
        tie = abs(value) <= (MARGIN if paper_gain == 0 else 0)
        told = "is a tie" if tie else f"{'agrees' if value > 0 and paper_gain != 0 else 'disagrees'} in sign"
        return f"{told} (one run)"
    if gain.fewest < seeds:
        return f"incomplete ({gain.fewest} of {seeds} seeds)"
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
    """Whether a figure of ours is the printed one to within `MARGIN`: two one-sided Welch tests (Schuirmann 1987).

    Attributes:
        low, high: interval of the difference at 1 - 2 `LEVEL`; inside the margin exactly where the test concludes.
        p: of the hypothesis that they differ by the margin or more; small means the same.
    """

    low: float
    high: float
    p: float

    def word(self) -> str:
        """ "the same" within the margin, "different" where the interval leaves out 0, or "undecided"."""
        if self.p <= LEVEL:
            return f"the same within {MARGIN:g}"
        return "undecided" if self.low <= 0 <= self.high else "different"


def tost(ours: Sample, printed: Sample) -> Equivalence | None:
    """Equivalence of two figures, both with the error of their own runs; None where a side has a single run."""
    if ours.n < 2 or printed.n < 2:
        return None
    above, below = (
        stats.ttest_ind_from_stats(
            *astuple(ours), printed.mean + shift, printed.std, printed.n, equal_var=False, alternative=side
        ).pvalue
        for shift, side in ((-MARGIN, "greater"), (MARGIN, "less"))
    )
    gap = welch("", ours, printed, 2 * LEVEL)
    return Equivalence(gap.low, gap.high, float(max(above, below)))


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


def seeds_needed(gain: float, std: float, level: float = LEVEL) -> int | None:
    """The fewest runs on each side that tell a gain with a chance of 80 %; None if 1,000 do not."""
    return next((n for n in range(2, 1001) if power(gain, std, n, level) >= 0.8), None)


def above_chance(percent: float, images: int, classes: int) -> bool:
    """Whether an accuracy on so many images is beyond guessing among the classes, by the binomial test at 1 %."""
    right = round(percent * images / 100)
    return bool(stats.binomtest(right, images, 1 / classes, "greater").pvalue < 0.01)


COMPARISONS = (("baseline", "dhm"), ("baseline", "dsl"), ("dsl", "dhm"))
"""(first, second) of the comparisons the paper makes; a gain is first minus second."""


def compared(source: Samples, comparisons: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(network, first, second) of all comparisons of which a source has both sides, network by network."""
    return [
        (network, first, second)
        for network in networks_of(source)
        for first, second in comparisons
        if {(network, first), (network, second)} <= source.keys()
    ]


def label(network: str, first: str, second: str) -> str:
    """Name of a comparison's row."""
    return f"{network}: {spoken(second)} over {spoken(first)}"


def p_word(value: float) -> str:
    """A p-value in four decimals."""
    return "–" if value != value else "< 0.0001" if value < 1e-4 else f"{value:.4f}"
