"""Runs by the paper's recipe one by one, for what can be said before five seeds are done (the protocol, P1)."""

from collections.abc import Mapping

import pandas as pd

from dhm.analysis.evidence import pairs, protocol
from dhm.analysis.evidence.results import gains, published, samples
from dhm.analysis.statistics import COMPARISONS, p_word, verdict
from dhm.analysis.variants import spoken
from dhm.paper.numbers import PAPER_SEEDS


def papers_row(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Both tables of P1's runs among those of `dhm.load_runs`; none where there are none."""
    chosen = runs[runs["experiment"] == protocol.PAPERS_ROW] if len(runs) else runs
    return tables({"CIFAR-100, the paper's recipe": chosen}) if len(chosen) else {}


def tables(runs: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Both tables of the runs under each title, those that have rows."""
    both = {"beside the paper": beside_print, "within a seed": within_seeds}
    made = {f"{title}, {what}": table(rows) for title, rows in runs.items() for what, table in both.items()}
    return {title: table for title, table in made.items() if len(table)}


def beside_print(runs: pd.DataFrame) -> pd.DataFrame:
    """B0's top-1 error of every run after its last and best epoch, beside the paper's mean and deviation, and whether
    the last lies in the 95 % prediction interval of one more run of the paper's."""
    printed = published("table1")
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


def within_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """The gain of one method over another with the same seed, the images it wins and loses, McNemar's p-value, and
    whether its sign is the paper's."""
    expected = {gain.label: gain.value for gain in gains(published("table1"))}
    rows = {}
    for seed, chosen in runs.groupby("seed"):
        observed = pairs.observed(chosen, COMPARISONS)
        for gain in gains(samples(chosen)):
            if gain.label in observed.keys() & expected.keys():
                network, _, comparison = gain.label.partition(": ")
                pair, papers = observed[gain.label], expected[gain.label]
                rows[network, seed, comparison] = {
                    "gain (points)": f"{gain.value:+.2f}",
                    "the paper's gain": f"{papers:+.2f}",
                    "images won : lost": f"{pair.only_first:,} : {pair.only_second:,}",
                    "p (McNemar)": p_word(pair.p),
                    "verdict": verdict(gain, papers, same_data=True, seeds=PAPER_SEEDS),
                }
    return _table(rows, ["network", "seed", "comparison"])


def _table(rows: dict, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(names if rows else None)
