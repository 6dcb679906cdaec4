"""Claims on quantities the paper prints no number of, by what our runs measured; no verdict is planned on them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from dhm.analysis.evidence import kept
from dhm.analysis.evidence.claims import Claim, read
from dhm.analysis.evidence.shelf import Shelf
from dhm.analysis.statistics import Sample, welch
from dhm.analysis.variants import spoken
from dhm.errors import InputError
from dhm.records.record import RunRecord

MEASURES: Mapping[str, tuple[Callable[[Iterable[RunRecord]], pd.DataFrame], str, str, str]] = {
    "gradient_cosine": (kept.gradients, "cosine", "loss", "cross-entropy"),
    "kernel_correlation": (kept.likenesses, "observed", "statistic", "entry by entry: mean"),
    "cka": (kept.likenesses, "observed", "statistic", "CKA"),
}
"""A measured quantity: the kept table it is in, its column, and the column and word that choose its rows."""


RUN = ["experiment", "method", "seed"]


def of_runs(records: Sequence[RunRecord], metric: str) -> pd.Series:
    """A quantity of each run by experiment, method and seed; empty where no run has it.

    B0's training accuracy in the last epoch in percent, or one of `MEASURES`, the mean over stages and pairs or layers.

    Raises:
        InputError: another quantity.
    """
    if metric == "train_accuracy":
        table = pd.DataFrame(
            {"experiment": record.config.experiment, "method": record.config.method, "seed": record.config.seed,
             "value": 100 * record.metrics[-1]["train"]["accuracy/B0"]}
            for record in records
        )  # fmt: skip
    elif metric in MEASURES:
        gather, column, chooser, chosen = MEASURES[metric]
        table = gather(records).rename(columns={column: "value"})
        table = table[table[chooser] == chosen] if len(table) else table
    else:
        raise InputError(f"a measure must be one of train_accuracy, {', '.join(MEASURES)}, not {metric!r}")
    table = table.reindex(columns=[*RUN, "value"])
    return table.groupby(RUN, sort=False)["value"].mean()


def by_experiment(records: Sequence[RunRecord], metric: str) -> pd.DataFrame:
    """A quantity of `of_runs` by experiment and method: mean, lowest and highest of the runs."""
    runs = of_runs(records, metric).groupby(RUN[:2], sort=False)
    found = runs.agg(["mean", "min", "max", "size"]).rename(columns={"size": "runs"})
    return found.round(3).rename(index=spoken, level="method")


def compare(claim: Claim, shelf: Shelf) -> tuple[str, str]:
    """Difference of a claim's quantity in the paper's runs and in the protocol's, and what follows from it."""
    told, words = [], []
    for name, records in _groups(claim, shelf).items():
        values = of_runs(records, claim.metric)
        methods = values.index.get_level_values("method")
        first, second = (Sample.of(list(values[methods == method])) for method in (claim.first, claim.second))
        if not (first.n and second.n):
            continue
        gain = welch(name, first, second)
        digits = 2 if claim.metric == "train_accuracy" else 3
        interval = f" [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]" if math.isfinite(gain.low) else " (one run)"
        told.append(f"{gain.value:+.{digits}f}{interval}")
        sign = "agrees" if gain.value > 0 else "disagrees"
        sure = gain.low > 0 or gain.high < 0
        told_by = "" if sure else ", one run" if math.isinf(gain.low) else ", within chance"
        words.append(f"{sign} in sign{told_by} ({name})")
    return ("; ".join(told), "no verdict planned: " + "; ".join(words)) if told else ("–", "not run")


def _groups(claim: Claim, shelf: Shelf) -> dict[str, list[RunRecord]]:
    """Records that bear on a claim by the network of its table they trained, or their experiment of the protocol."""
    groups: dict[str, list[RunRecord]] = {}
    for table in set(claim.tables) & shelf.of_the_paper.keys():
        for record in map(RunRecord.read, shelf.of_the_paper[table]["folder"]):
            if not claim.networks or record.config.network in claim.networks:
                groups.setdefault(record.config.network, []).append(record)
    for record in shelf.records:
        if record.config.experiment in claim.elsewhere:
            groups.setdefault(record.config.experiment, []).append(record)
    return groups


def sentences(notebook: str, shelf: Shelf) -> list[str]:
    """What the report says of a notebook's claims on such quantities, a sentence a claim."""
    found = []
    for claim in read():
        if (claim.kind, claim.notebook) == ("measure", notebook):
            told, verdict = compare(claim, shelf)
            figures = "" if told == "–" else f"{spoken(claim.first)} minus {spoken(claim.second)} {told}, "
            found.append(f"{claim.place}. *{claim.claim}*: {figures}{verdict}.")
    return found
