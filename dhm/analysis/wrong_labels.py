"""Runs on corrupt labels (appendix E): one row a ratio, kept runs beside fresh ones, curves over seeds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from dhm import paths
from dhm.analysis.variants import names
from dhm.runs import RunRecord, load_runs

Curves = dict[str, dict[str, list[list[dict[str, Any]]]]]
"""Panel -> variant -> metrics of its runs, one list an epoch each."""


def network_at(network: str, ratio: float) -> str:
    """A network's row at a ratio of corruption; the clean one keeps its name."""
    return f"{network}, {100 * ratio:.0f}% of labels redrawn" if ratio else network


def by_ratio(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with the ratio in the name of the network, so that each is compared with its like."""
    pairs = [] if runs.empty else zip(runs["network"], runs["label_noise"], strict=True)
    return runs if runs.empty else runs.assign(network=[network_at(network, ratio) for network, ratio in pairs])


def kept(folder: str | Path | None = None) -> dict[str, pd.DataFrame]:
    """Finished full runs with corrupt labels and, of the same networks and data sets, with clean ones; by data set.

    Args:
        folder: where to look; by default the committed records.
    """
    runs = load_runs(folder or paths.root() / "data" / "records")
    if runs.empty:
        return {}
    runs = runs.assign(data=[Path(dataset).name for dataset in runs["dataset"]])
    corrupt = runs[runs["label_noise"] > 0]
    asked = set(zip(corrupt["network"], corrupt["data"], strict=True))
    rows = runs[[pair in asked for pair in zip(runs["network"], runs["data"], strict=True)]]
    return {f"full runs, {name}": by_ratio(group) for name, group in rows.groupby("data")}


def shares(records: Iterable[RunRecord]) -> pd.DataFrame:
    """The share of labels asked to be redrawn and the share really changed, a row a ratio and seed."""
    rows: dict[tuple[float, int], set[float]] = {}
    for record in records:
        assert record.result is not None, "the run is not finished"
        place = (record.config.label_noise, record.config.seed)
        rows.setdefault(place, set()).add(record.result["data"]["wrong_labels"])
    table = pd.DataFrame(
        {"redrawn": ratio, "seed": seed, "changed": ", ".join(f"{share:.4f}" for share in sorted(changed))}
        for (ratio, seed), changed in rows.items()
    )
    return table.pivot(index="redrawn", columns="seed", values="changed")


def curves(title: str, records: Iterable[RunRecord]) -> Curves:
    """Metrics of the runs with corrupt labels, a panel a network and ratio."""
    corrupt = [record for record in records if record.config.label_noise]
    panels: Curves = {}
    for record, name in zip(corrupt, names([record.config for record in corrupt]), strict=True):
        panel = f"{title}\n{network_at(record.config.network, record.config.label_noise)}"
        panels.setdefault(panel, {}).setdefault(name, []).append(record.metrics)
    return dict(sorted(panels.items()))
