"""Runs by the paper's recipe one by one, for what can be said before five seeds are done (the protocol, P1)."""

from collections.abc import Sequence

import pandas as pd

from dhm.analysis.evidence import pairs
from dhm.analysis.evidence.results import published, samples
from dhm.analysis.statistics import COMPARISONS, label, p_word, word
from dhm.analysis.variants import spoken
from dhm.paper.numbers import PAPER_SEEDS


def beside_print(runs: pd.DataFrame, table: str = "table1") -> pd.DataFrame:
    """B0's top-1 error of every run after its last and best epoch, beside the paper's mean and deviation, and whether
    the last lies in the 95 % prediction interval of one more run of the paper's."""
    printed = published(table)
    rows = {}
    for seed, chosen in runs.groupby("seed"):
        last, best = samples(chosen), samples(chosen, which="best")
        for key, sample in last.items():
            if key in printed and " at " not in key[1]:
                low, high = printed[key].prediction()
                rows[key[0], seed, spoken(key[1])] = {
                    "last epoch": f"{sample.mean:.2f}",
                    "best epoch": f"{best[key].mean:.2f}",
                    "the paper": str(printed[key]),
                    "one more run of it": f"[{low:.2f}, {high:.2f}]",
                    "verdict": "inside" if low <= sample.mean <= high else "outside",
                }
    return _table(rows, ["network", "seed", "method"])


def within_seeds(runs: pd.DataFrame, comparisons: Sequence[tuple[str, str]] = COMPARISONS) -> pd.DataFrame:
    """The gain of one method over another with the same seed, the images it wins and loses, McNemar's p-value, and
    whether its sign is the paper's."""
    printed = published("table1")
    rows = {}
    for (seed, network), chosen in runs.groupby(["seed", "network"]):
        errors, observed = samples(chosen), pairs.observed(chosen, comparisons)
        for first, second in comparisons:
            pair = observed.get(label(network, first, second))
            if pair is None or (network, first) not in printed:
                continue
            gain, expected = (
                source[network, first].mean - source[network, second].mean for source in (errors, printed)
            )
            rows[network, seed, f"{spoken(second)} over {spoken(first)}"] = {
                "gain (points)": f"{gain:+.2f}",
                "the paper's gain": f"{expected:+.2f}",
                "images won : lost": f"{pair.only_first:,} : {pair.only_second:,}",
                "p (McNemar)": p_word(pair.p),
                "verdict": word(gain, gain, gain, 1, expected, same_data=True, seeds=PAPER_SEEDS),
            }
    return _table(rows, ["network", "seed", "comparison"])


def _table(rows: dict, names: list[str]) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.set_axis(pd.MultiIndex.from_tuples(rows, names=names)) if rows else table
