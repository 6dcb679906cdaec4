"""The measured runs in data/records, judged by their protocol."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dhm import paths
from dhm.analysis.evidence.results import gain_table, grouped, samples
from dhm.analysis.statistics import Gain, Sample, holm, label, verdict, welch
from dhm.analysis.variants import spoken
from dhm.branches import MAIN
from dhm.config import METHODS
from dhm.records.record import RunRecord

SEEDS = 5
"""Runs of each method that the protocol asks for."""
PAPERS_ROW = "table1"
"""Experiment of P1's runs, which are judged beside the paper's (`single_runs`, `sources`) and have no row here."""
OFF_CHANCE = 5
"""Points below the error of guessing from which a network has begun to learn."""
BY_SEED = ("last epoch", "best epoch", "epochs to leave chance")
SECONDARY: Mapping[str, tuple[str, int]] = {
    "top1_error": ("top-1 error (%)", 2), "top5_error": ("top-5 error (%)", 2),
    "nll": ("negative log-likelihood (nats)", 3), "ece": ("calibration error", 3),
}  # fmt: skip
"""Figures without a verdict: their names in a table, and their decimals."""


@dataclass(frozen=True)
class Comparison:
    """A row of the protocol, fixed before its runs.

    Attributes:
        table: rows of one table are judged together.
        experiment: folder below data/records.
        first, second: methods; a gain is the error of the first minus that of the second.
        paper_gain: in points, None where the paper prints none.
        source: where the paper prints it.
    """

    table: str
    experiment: str
    first: str
    second: str
    paper_gain: float | None
    source: str


@dataclass(frozen=True)
class Judged:
    """A row of the protocol with what its runs say; `best` is the gain at each run's best epoch, without a verdict."""

    comparison: Comparison
    gain: Gain
    verdict: str
    best: float


def comparisons() -> list[Comparison]:
    """The protocol's rows; none where the package was installed without a clone."""
    file = paths.records_dir() / "comparisons.csv"
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as lines:
        return [
            Comparison(
                row["table"], row["experiment"], row["first"], row["second"],
                float(row["paper_gain"]) if row["paper_gain"] else None, row["source"],
            )
            for row in csv.DictReader(lines)
        ]  # fmt: skip


def judge(runs: pd.DataFrame, metric: str = "top1_error", which: str = "last") -> list[Judged]:
    """Every row of the protocol with its gain, Holm over its table's planned rows, and its verdict.

    Args:
        runs: of `dhm.load_runs`; rows whose runs are missing are "not run".
    """
    found = []
    planned = comparisons()
    for table in dict.fromkeys(row.table for row in planned):
        rows = [row for row in planned if row.table == table]
        gains = holm([_gain(row, runs, metric, which) for row in rows], planned=len(rows))
        for row, gain in zip(rows, gains, strict=True):
            word = verdict(gain, row.paper_gain, same_data=False, seeds=SEEDS)
            found.append(Judged(row, gain, word, best=_gain(row, runs, metric, "best").value))
    return found


def _gain(row: Comparison, runs: pd.DataFrame, metric: str, which: str) -> Gain:
    chosen = runs[runs["experiment"] == row.experiment] if len(runs) else runs
    errors = {method: sample for (_, method), sample in samples(chosen, metric, which).items()}
    first, second = (errors.get(method, Sample.of([])) for method in (row.first, row.second))
    return welch(label(row.experiment, row.first, row.second), first, second)


def with_runs(judged: Sequence[Judged]) -> list[Judged]:
    """The rows that have runs on both sides."""
    return [row for row in judged if row.verdict != "not run"]


def gains_by_experiment(judged: Sequence[Judged]) -> dict[str, list[Gain]]:
    """Gains that have an interval, under their experiment."""
    found: dict[str, list[Gain]] = {}
    for row in judged:
        if math.isfinite(row.gain.low):
            found.setdefault(row.comparison.experiment, []).append(row.gain)
    return found


def finished(runs: pd.DataFrame) -> dict[str, str]:
    """Experiments of the protocol that have runs, P1 first, with the number of runs of each method, in words."""
    planned = dict.fromkeys([PAPERS_ROW, *(row.experiment for row in comparisons())])
    counts = runs.groupby(["experiment", "method"]).size().to_dict() if len(runs) else {}
    return {
        name: ", ".join(f"{counts.get((name, method), 0)} of {SEEDS} {spoken(method)}" for method in METHODS)
        for name in planned
        if any(experiment == name for experiment, _ in counts)
    }


def table(judged: Sequence[Judged]) -> pd.DataFrame:
    """Rows of the protocol as a table to read: errors, gain, that at the best epoch, interval, p, the paper's gain,
    verdict; an empty one without rows."""
    if not judged:
        return pd.DataFrame()
    shown = gain_table([row.gain for row in judged], {row.gain.label: row.verdict for row in judged})
    expected = [row.comparison.paper_gain for row in judged]
    shown.insert(0, "errors (%)", [f"{row.gain.first} → {row.gain.second}" for row in judged])
    shown.insert(2, "at the best epoch", ["–" if math.isnan(row.best) else f"{row.best:+.2f}" for row in judged])
    shown.insert(3, "the paper's gain", ["–" if gain is None else f"{gain:+.2f}" for gain in expected])
    return shown


def curves(records: Iterable[RunRecord]) -> dict[str, dict[str, list[list[dict[str, Any]]]]]:
    """Metrics of finished runs by experiment and method, methods in the order of all figures."""
    return {
        name: {method: [run.metrics for run in runs] for method, runs in methods.items()}
        for name, methods in grouped(records).items()
    }


def by_seed(records: Iterable[RunRecord], experiment: str) -> pd.DataFrame:
    """B0 of every finished run of an experiment: top-1 error after the last and the best epoch in percent, and how many
    epochs passed before its test error was `OFF_CHANCE` points below that of guessing; a row a seed."""
    cells: dict[int, dict[tuple[str, str], str]] = {}
    for method, runs in grouped(records).get(experiment, {}).items():
        for run in runs:
            assert run.result is not None, "of finished runs"
            left = 100 * (1 - 1 / run.result["data"]["classes"]) - OFF_CHANCE
            errors = [line["test"][MAIN]["top1_error"] for line in run.metrics]
            waited = next((epoch for epoch, error in enumerate(errors) if error < left), len(errors))
            figures = (f"{errors[-1]:.2f}", f"{min(errors):.2f}", str(waited))
            cells.setdefault(run.config.seed, {}).update(
                {(name, method): figure for name, figure in zip(BY_SEED, figures, strict=True)}
            )
    columns = pd.MultiIndex.from_product([BY_SEED, METHODS])
    table = pd.DataFrame.from_dict(cells, orient="index", columns=columns)
    return table.sort_index().rename_axis("seed").rename(columns=spoken, level=1).fillna("–")


def secondary(runs: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Figures of an experiment without a verdict: every head after the last and the best epoch, mean ± deviation."""
    chosen = runs[runs["experiment"] == experiment]
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for metric, (words, digits) in SECONDARY.items():
        for which in ("last", "best"):
            for (_, name), sample in samples(chosen, metric, which).items():
                method, _, head = name.partition(" at ")
                spread = f" ± {sample.std:.{digits}f}" if sample.n > 1 else ""
                row = cells.setdefault((method, head or MAIN, f"{which} epoch"), {})
                row[words] = f"{sample.mean:.{digits}f}{spread}"
    order = sorted(cells, key=lambda row: (METHODS.index(row[0]), row[2] != "last epoch", row[1]))
    table = pd.DataFrame.from_dict({row: cells[row] for row in order}, orient="index")
    return table.rename_axis(["method", "head", "epoch"]).rename(index=spoken, level="method")
