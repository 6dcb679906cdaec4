"""Statistics against scipy and statsmodels called by hand, and against simulation."""

import gc
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables, weightstats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from dhm.analysis.evidence import results
from dhm.analysis.evidence.pairs import Pair
from dhm.analysis.statistics import (
    Difference,
    Sample,
    above_chance,
    holm,
    holm_p,
    power,
    seeds_needed,
    tost,
    verdict,
    welch,
)

RNG = np.random.default_rng(0)


def test_welch_equals_the_libraries() -> None:
    a, b = RNG.normal(30, 0.3, 5), RNG.normal(28, 0.5, 4)
    gain = welch("x", Sample.of(a), Sample.of(b))
    assert gain.p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    low, high = CompareMeans(DescrStatsW(a), DescrStatsW(b)).tconfint_diff(usevar="unequal")
    assert (gain.low, gain.high) == pytest.approx((low, high))
    assert gain.value == pytest.approx(a.mean() - b.mean())


def test_holm_equals_statsmodels_and_intervals_exclude_zero_exactly_where_it_rejects() -> None:
    gc.freeze()  # statsmodels collects garbage at every call
    for _ in range(50):
        rows = []
        for i in range(6):
            shift = RNG.choice([0.0, 0.4, 1.0, 3.0])
            rows.append(welch(str(i), Sample.of(RNG.normal(shift, 0.5, 5)), Sample.of(RNG.normal(0, 0.7, 5))))
        reject, adjusted, *_ = multipletests([row.p for row in rows], method="holm")
        assert holm_p([row.p for row in rows]) == pytest.approx(adjusted)
        for row, rejected, p in zip(holm(rows), reject, adjusted, strict=True):
            assert row.adjusted_p == pytest.approx(p)
            assert (row.low > 0 or row.high < 0) == rejected
    gc.unfreeze()


def test_single_runs_have_no_interval_and_do_not_count() -> None:
    one, five = Sample.of([3.0]), Sample.of(RNG.normal(2, 0.1, 5))
    rows = holm([welch("one", one, five), welch("five", Sample.of(RNG.normal(3, 0.1, 5)), five)])
    assert math.isinf(rows[0].low)
    assert math.isnan(rows[0].adjusted_p)
    assert rows[1].adjusted_p == rows[1].p


@pytest.mark.parametrize(("b", "c"), [(0, 5), (12, 3), (40, 61), (7, 7), (1900, 2034)])
def test_mcnemar_equals_the_library(b: int, c: int) -> None:
    table = np.array([[100, b], [c, 30]])
    assert Pair(b, c).p == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue)
    assert Pair(0, 0).p == 1.0


def simulate(gain: float, paper_gain: float, runs: int = 1000) -> dict[str, float]:
    """Shares of verdicts for a single row (where Holm changes nothing) of five seeds with ResNet-32's spread."""
    rng = np.random.default_rng(1)
    rows = [
        welch("x", Sample.of(rng.normal(30, 0.21, 5)), Sample.of(rng.normal(30 - gain, 0.26, 5))) for _ in range(runs)
    ]
    words = [verdict(row, paper_gain, same_data=True, seeds=5) for row in rows]
    return {word: words.count(word) / runs for word in set(words)}


def test_error_rates_of_the_verdicts() -> None:
    assert simulate(gain=0.0, paper_gain=2.9).get("reproduced", 0) < 0.05
    assert simulate(gain=2.9, paper_gain=2.9).get("contradicted", 0) < 0.05
    assert simulate(gain=2.9, paper_gain=2.9)["reproduced"] > 0.99


@pytest.mark.parametrize(
    ("first", "second", "same", "word"),
    [
        ([30, 30.1, 29.9, 30.2, 29.8], [28, 28.1, 27.9, 28.2, 27.8], True, "reproduced"),
        ([30, 30.1, 29.9, 30.2, 29.8], [28, 28.1, 27.9, 28.2, 27.8], False, "supported elsewhere"),
        ([28, 28.1, 27.9, 28.2, 27.8], [28, 28.1, 27.9, 28.2, 27.8], True, "contradicted"),
        ([28, 28.1, 27.9, 28.2, 27.8], [28, 28.1, 27.9, 28.2, 27.8], False, "not supported elsewhere"),
        ([28, 31, 27, 33, 25], [28, 30, 26, 33, 24], True, "inconclusive"),
        ([28, 31], [27, 30], True, "incomplete (2 of 5 seeds)"),
        ([28], [27], True, "agrees in sign (one run)"),
        ([27], [28], True, "disagrees in sign (one run)"),
        ([28], [28], True, "is a tie (one run)"),
        ([], [28, 29], True, "not run"),
    ],
)
def test_words(first: list, second: list, same: bool, word: str) -> None:
    gain = holm([welch("x", Sample.of(first), Sample.of(second))])[0]
    assert verdict(gain, paper_gain=2.0, same_data=same, seeds=5) == word


def test_without_a_printed_gain_nothing_is_contradicted() -> None:
    gain = welch("x", Sample.of([28, 28.1, 27.9, 28.0, 28.1]), Sample.of([28, 28.1, 27.9, 28.0, 28.1]))
    assert verdict(gain, None, same_data=True, seeds=5) == "inconclusive"


@pytest.mark.parametrize(
    ("value", "half", "paper_gain", "at_least", "told"),
    [
        (-0.3, 0.1, -0.3, None, "reproduced"),  # a printed loss, found again
        (0.5, 0.2, -0.3, None, "contradicted"),
        (0.1, 0.3, 0.0, None, "reproduced"),  # a printed tie
        (0.8, 0.3, 0.0, None, "contradicted"),
        (0.3, 0.4, 0.0, None, "inconclusive"),
        (0.5, 0.25, 1.2, 1.0, "contradicted"),  # a gain, but not over the claimed point
        (1.5, 0.25, 1.2, 1.0, "reproduced"),
        (1.1, 0.25, 1.2, 1.0, "inconclusive"),
        (-0.2, 0.2, 0.3, -0.5, "reproduced"),  # no worse than half a point
        (-0.9, 0.2, 0.3, -0.5, "contradicted"),
    ],
)
def test_words_for_losses_ties_and_claimed_sizes(value, half, paper_gain, at_least, told) -> None:
    gain = Difference("x", value, value - half, value + half, 0.01, fewest=5)
    assert verdict(gain, paper_gain, True, 5, at_least) == told


def test_single_runs_against_what_is_claimed() -> None:
    def word(value: float, paper_gain: float, at_least: float | None = None) -> str:
        one = Difference("x", value, -math.inf, math.inf, math.nan, fewest=1)
        return verdict(one, paper_gain, True, 5, at_least)

    assert word(-0.2, -0.3) == "agrees in sign (one run)"
    assert word(0.2, -0.3) == "disagrees in sign (one run)"
    assert word(0.2, 0.0) == "is a tie (one run)"
    assert word(0.8, 1.2, at_least=1.0) == "falls short (one run)"


def test_rows_to_come_count_against_the_rows_there_are() -> None:
    """Two rows of a table of six are judged as if the other four were not rejected, whatever these will say."""
    gc.freeze()
    now = [welch(str(i), Sample.of(RNG.normal(0.5, 0.3, 5)), Sample.of(RNG.normal(0, 0.3, 5))) for i in range(2)]
    null = Sample.of([30.0, 31, 29, 30.5, 29.5])
    later = [*now, *(welch(f"to come {i}", null, null) for i in range(4))]
    for row, whole in zip(holm(now, planned=6), holm(later), strict=False):
        assert (row.adjusted_p, row.low, row.high) == pytest.approx((whole.adjusted_p, whole.low, whole.high))
    gc.unfreeze()


def test_equivalence_equals_the_library() -> None:
    for shift in (0.0, 0.2, 0.6, 2.0):
        a, b = RNG.normal(30 + shift, 0.3, 5), RNG.normal(30, 0.25, 5)
        ours = tost(Sample.of(a), Sample.of(b))
        p, *_ = weightstats.ttost_ind(a, b, -0.5, 0.5, usevar="unequal")
        assert ours.p == pytest.approx(p)
        low, high = CompareMeans(DescrStatsW(a), DescrStatsW(b)).tconfint_diff(alpha=0.1, usevar="unequal")
        assert (ours.low, ours.high) == pytest.approx((low, high))
        assert (low > -0.5 and high < 0.5) == (ours.p < 0.05)
    assert tost(Sample.of([30.0]), Sample.of([30.0, 30.1])) is None


def test_words_of_equivalence() -> None:
    tight = [30.0, 30.05, 29.95, 30.02, 29.98]
    assert tost(Sample.of(tight), Sample(30.1, 0.05, 5)).word() == "the same within 0.5"
    assert tost(Sample.of(tight), Sample(32.0, 0.05, 5)).word() == "different"
    assert tost(Sample.of([28.0, 32, 30, 31, 29]), Sample(30.0, 0.2, 5)).word() == "undecided"


def test_different_figures_are_seldom_called_the_same() -> None:
    """At a true difference of the margin, "the same" comes in at most 5 % of experiments."""
    rng = np.random.default_rng(2)
    words = [tost(Sample.of(rng.normal(30.5, 0.25, 5)), Sample.of(rng.normal(30, 0.25, 5))).word() for _ in range(1000)]
    assert sum(word.startswith("the same") for word in words) <= 0.05 * 1000 + 2 * math.sqrt(0.05 * 0.95 * 1000)


@pytest.mark.parametrize(("gain", "std"), [(0.3, 0.3), (0.8, 0.4), (2.9, 0.25)])
def test_power_is_how_often_a_gain_is_found(gain: float, std: float) -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(30, std, (4000, 5)), rng.normal(30 - gain, std, (4000, 5))
    found = float((stats.ttest_ind(first, second, axis=1).pvalue < 0.05).mean())
    assert power(gain, std, 5) == pytest.approx(found, abs=0.025)


@pytest.mark.parametrize(
    ("effect", "seeds", "level"), [(0.5, 5, 0.05), (2.0, 5, 0.05), (9.0, 2, 0.0024), (5.0, 3, 0.0024)]
)
def test_power_equals_the_library(effect: float, seeds: int, level: float) -> None:
    theirs = TTestIndPower().power(effect, nobs1=seeds, alpha=level, alternative="two-sided")
    assert power(effect, 1.0, seeds, level) == pytest.approx(theirs)


def test_power_where_the_library_has_no_number() -> None:
    """A large effect at a strict level and few seeds, against 20,000 drawn experiments."""
    effect, seeds, level = 12.6, 2, 0.05 / 21
    rng = np.random.default_rng(4)
    first, second = rng.normal(0, 1, (20000, seeds)), rng.normal(effect, 1, (20000, seeds))
    found = float((stats.ttest_ind(first, second, axis=1).pvalue < level).mean())
    assert power(effect, 1.0, seeds, level) == pytest.approx(found, abs=0.015)
    assert power(12.45, 1.0, 3, level) > 0.99
    assert power(12.0, 1.0, 1000) == pytest.approx(1)
    assert seeds_needed(12.45, 1.0, level=level) == 3


def test_seeds_needed() -> None:
    n = seeds_needed(0.3, 0.4)
    assert power(0.3, 0.4, n) >= 0.8 > power(0.3, 0.4, n - 1)
    assert seeds_needed(1e-4, 1.0) is None


def test_what_table_1_carries_by_itself() -> None:
    """DSL over baseline stands in 1 of 7 networks, DHM over DSL and over baseline in 7 of 7."""
    published = results.published("table1")
    for pair, expected in [(("baseline", "dsl"), 1), (("dsl", "dhm"), 7), (("baseline", "dhm"), 7)]:
        found = results.gains(published, [pair])
        assert len(found) == 7
        assert sum(gain.low > 0 for gain in found) == expected


def test_gains_of_table_3_are_rises_of_map() -> None:
    published = results.published("table3", "mAP")
    found = results.gains(results.missed(published), [("baseline", "dhm")])
    assert {gain.label.partition(":")[0]: round(gain.value, 6) for gain in found} == {
        "resnet50 on market1501": 6.4, "resnet50 on dukemtmc-reid": 6.0,
        "mobilenet_v1 on market1501": 3.5, "mobilenet_v1 on dukemtmc-reid": 4.9,
    }  # fmt: skip
    table = results.error_table({"paper": published}, more_is_better=True)
    assert table["gain of DHM"].tolist() == ["+6.40", "+6.00", "+3.50", "+4.90"]
    assert table["gain of DSL"].tolist() == ["+1.70", "+1.10", "+0.00", "+1.20"]


@pytest.mark.parametrize("confidence", [0.95, 0.9875])
def test_interval_of_a_mean_is_scipys(confidence: float) -> None:
    values = [0.31, 0.12, 0.27, -0.05, 0.4]
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert Sample.of(values).interval(confidence) == pytest.approx((expected.low, expected.high))
    assert Sample.of(values[:1]).interval() == (-math.inf, math.inf)


def test_above_chance_is_a_one_sided_binomial_test() -> None:
    """The tail of the binomial distribution, summed by hand."""
    for right in (15, 18, 19, 25):
        tail = sum(math.comb(100, k) * 0.1**k * 0.9 ** (100 - k) for k in range(right, 101))
        assert above_chance(float(right), 100, 10) == (tail < 0.01)
    assert above_chance(25.0, 100, 10)
    assert not above_chance(0.0, 100, 10)
