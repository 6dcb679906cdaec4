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


def of_runs(records: Sequence[RunRecord], metric: str) -> dict[str, list[float]]:
    """method -> a quantity of each of its runs: B0's training accuracy in the last epoch in percent, or one of
    `MEASURES`, the mean over stages and pairs or over layers.

    Raises:
        InputError: another quantity.
    """
    if metric == "train_accuracy":
        found: dict[str, list[float]] = {}
        for record in records:
            found.setdefault(record.config.method, []).append(100 * record.metrics[-1]["train"]["accuracy/B0"])
        return found
    if metric not in MEASURES:
        raise InputError(f"a measure must be one of train_accuracy, {', '.join(MEASURES)}, not {metric!r}")
    gather, column, chooser, chosen = MEASURES[metric]
    table = gather(records)
    if table.empty:
        return {}
    means = table[table[chooser] == chosen].groupby(["method", "seed"])[column].mean()
    return {str(method): list(values) for method, values in means.groupby("method")}


def compare(claim: Claim, shelf: Shelf) -> tuple[str, str]:
    """Difference of a claim's quantity in the paper's runs and in the protocol's, and what follows from it."""
    told, words = [], []
    for name, records in _groups(claim, shelf).items():
        values = of_runs(records, claim.metric)
        first, second = (Sample.of(values.get(method, [])) for method in (claim.first, claim.second))
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
    for table in claim.tables:
        folders = shelf.of_the_paper[table]["folder"] if table in shelf.of_the_paper else []
        for record in map(RunRecord.read, folders):
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
