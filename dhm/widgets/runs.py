"""Runs of this machine and of the project's records: curves, classifiers, gaps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets
import pandas as pd

from dhm import paths
from dhm.analysis.variants import method_of, spoken, variant
from dhm.metrics import error_name, main_error
from dhm.plots.runs import overview
from dhm.plots.style import METHODS
from dhm.records.record import RunRecord
from dhm.records.store import find
from dhm.widgets.view import WIDE, View, explorer

NONE = (
    "There are no runs to show yet. Train some, e.g. with the notebook table1_cifar100 or with "
    "`python -m dhm train --preset quick --method baseline dsl dhm`, and run this cell again."
)
GAP = "gap of B0 (points)"


def choices(*folders: str | Path) -> dict[str, RunRecord]:
    """Runs with at least one epoch, local and committed by default, by a name that is unique and readable."""
    places = folders or (paths.runs_dir(), paths.records_dir())
    found: dict[str, RunRecord] = {}
    for record in find(*places):
        if record.metrics:
            config = record.config
            name = f"{config.experiment} · {config.network} · {called(record)}"
            found[name if name not in found else f"{name} · {config.digest}"] = record
    return found


def called(record: RunRecord) -> str:
    """A run's variant and seed, e.g. "DHM (seed 0)"."""
    return spoken(named(record))


def named(record: RunRecord) -> str:
    """The same as figures take it, the method first: "dhm, seed 0"."""
    return f"{variant(record.config)}, seed {record.config.seed}"


def first(found: Mapping[str, RunRecord]) -> list[str]:
    """The runs shown first: those of one network and seed of the first experiment, one of each variant."""
    if not found:
        return []
    lead = next(iter(found.values())).config
    same = ("experiment", "network", "seed", "dataset")
    alike = [n for n, r in found.items() if all(getattr(r.config, f) == getattr(lead, f) for f in same)]
    by_variant = {variant(found[name].config): name for name in reversed(alike)}
    order = list(METHODS)
    return [by_variant[key] for key in sorted(by_variant, key=lambda key: (order.index(method_of(key)), key))][:6]


def view(records: Sequence[RunRecord]) -> View:
    """Curves of runs and what every classifier came to; a friendly sentence where there are none."""
    if not records:
        return View(NONE)
    names: dict[str, RunRecord] = {}
    for record in records:
        name = named(record)
        names[name if name not in names else f"{name}, {record.config.experiment}, {record.config.digest}"] = record
    rows = {}
    for name, record in names.items():
        last = record.metrics[-1]
        row = {f"{error_name(values)} of {head} (%)": main_error(values) for head, values in last["test"].items()}
        if "error of B0 (%)" in row:  # a search has no accuracy to be compared
            row[GAP] = 100 * last["train"]["accuracy/B0"] - (100 - row["error of B0 (%)"])
        rows[spoken(name)] = {"epochs": last["epoch"] + 1, **row}
    table = pd.DataFrame.from_dict(rows, orient="index")
    figures = table.columns.drop("epochs")
    table[figures] = table[figures].map(lambda number: "–" if pd.isna(number) else f"{number:.2f}")
    table = table[sorted(table.columns, key=lambda column: column == GAP)]
    small = any(record.config.dataset in ("fashion-mnist-mini", "pedestrians") for record in records)
    words = f"{len(records)} run{'s' if len(records) > 1 else ''} after the last epoch."
    if GAP in table:
        words += " The gap is training minus test accuracy, of which the first is measured on augmented images while "
        words += "the weights change."
    words += " Runs on the embedded images check the pipeline; they are no evidence." if small else ""
    return View(words, overview({name: record.metrics for name, record in names.items()}), table)


def explore(*folders: str | Path) -> ipywidgets.VBox:
    """Choose runs from a list (several with Ctrl or Shift)."""
    found = choices(*folders)
    control = ipywidgets.SelectMultiple(
        options=list(found), value=first(found), description="runs", rows=min(8, max(3, len(found))), style=WIDE,
        layout={"width": "100%", "max_width": "760px"},
    )  # fmt: skip
    if not found:
        control.layout.display = "none"
    return explorer({"names": control}, lambda names: view([found[name] for name in names]))
