"""Figure 2's question: who fits the training images least, and who errs least on the others."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import pandas as pd

from dhm.analysis.variants import spoken, variant
from dhm.branches import MAIN
from dhm.errors import InputError
from dhm.records.record import RunRecord
from dhm.records.store import find
from dhm.records.weights import load_trained
from dhm.training.evaluation import evaluate

SEEN, PLAIN, VALIDATION = (
    "training, as the loop saw it", "training images, eval mode, no augmentation", "validation"
)  # fmt: skip
Drawn = Mapping[str, Mapping[str, RunRecord]]
"""Network -> variant -> the run that is drawn."""


def finished(folder: str) -> list[RunRecord]:
    """The finished runs in a folder.

    Raises:
        InputError: there is none.
    """
    found = [record for record in find(folder) if record.result is not None]
    if not found:
        raise InputError(f"there is no finished run in {folder}")
    return found


def first_seeds(records: Iterable[RunRecord]) -> dict[str, dict[str, RunRecord]]:
    """Of every network and variant the first run."""
    drawn: dict[str, dict[str, RunRecord]] = {}
    for record in records:
        drawn.setdefault(record.config.network, {}).setdefault(variant(record.config), record)
    return drawn


def listed(drawn: Drawn) -> list[RunRecord]:
    """The runs of all networks."""
    return [run for runs in drawn.values() for run in runs.values()]


def compared(drawn: Drawn, comparisons: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Comparisons of methods as comparisons of the variants that are drawn: "dhm" may be "dhm, with scale"."""
    names = {name.partition(",")[0]: name for runs in drawn.values() for name in runs}
    return [(names[first], names[second]) for first, second in comparisons if {first, second} <= names.keys()]


def on_training_images(drawn: Drawn, accelerator: str = "auto") -> dict[str, dict[str, float]]:
    """Accuracy of B0's last checkpoint on the training images, in eval mode and without augmentation, in percent; of
    the runs that still have their checkpoint."""
    return {
        network: {
            name: 100 - evaluate(load_trained(run), run.config, accelerator=accelerator, train=True)
            .summary()[MAIN]["top1_error"]
            for name, run in runs.items()
            if (run.folder / "last.pt").is_file()
        }
        for network, runs in drawn.items()
    }  # fmt: skip


def accuracies(drawn: Drawn, plain: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Top-1 accuracies of B0 after the last epoch in percent, a row a run.

    Args:
        plain: of `on_training_images`.
    """
    rows = {
        (network, spoken(name)): {
            SEEN: 100 * run.metrics[-1]["train"][f"accuracy/{MAIN}"],
            PLAIN: plain.get(network, {}).get(name, float("nan")),
            VALIDATION: 100 - run.metrics[-1]["test"][MAIN]["top1_error"],
        }
        for network, runs in drawn.items()
        for name, run in runs.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["network", "method"])


def ends(table: pd.DataFrame) -> list[str]:
    """A sentence a network: which method has the lowest training accuracies and which the highest on validation.

    Args:
        table: of `accuracies`.
    """
    told = []
    for network, rows in table.groupby(level=0, sort=False):
        figures = rows.droplevel(0).dropna(axis="columns")
        found = [
            f"highest {name}: {column.idxmax()}" if name == VALIDATION else f"lowest {name}: {column.idxmin()}"
            for name, column in figures.items()
        ]
        told.append(f"**{network}**: {'; '.join(found)} (one run each)")
    return told


def last_epochs(curves: Mapping[str, Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]]) -> pd.DataFrame:
    """Training and test accuracy of B0 in the last epoch in percent, means over runs.

    Args:
        curves: of `protocol.curves`.
    """
    rows = {
        (name, spoken(method)): {
            "runs": len(runs),
            "training accuracy of B0, last epoch (%)": mean(100 * r[-1]["train"][f"accuracy/{MAIN}"] for r in runs),
            "test accuracy of B0 (%)": mean(100 - r[-1]["test"][MAIN]["top1_error"] for r in runs),
        }
        for name, methods in curves.items()
        for method, runs in methods.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").round(2)
