"""Runs on corrupt labels (appendix E): one row a ratio, kept runs beside fresh ones, curves over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dhm.analysis.statistics import Samples
from dhm.analysis.variants import names
from dhm.config import METHODS, Config
from dhm.records.record import RunRecord

Curves = dict[str, dict[str, list[list[dict[str, Any]]]]]
"""Panel -> variant -> metrics of its runs, one list an epoch each."""


def network_at(network: str, ratio: float, excludes_truth: bool = False) -> str:
    """A network's row at a ratio of corruption; the clean one keeps its name."""
    if not ratio:
        return network
    return f"{network}, {100 * ratio:g}% of labels {'made wrong' if excludes_truth else 'redrawn'}"


def clean_network(row: str) -> str:
    """The network behind a row of `network_at`."""
    return row.partition(", ")[0]


def by_ratio(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with the ratio in the name of the network, so that each is compared with its like."""
    if runs.empty:
        return runs
    columns = (runs[name] for name in ("network", "label_noise", "label_noise_excludes_truth"))
    return runs.assign(network=[network_at(*row) for row in zip(*columns, strict=True)])


def by_dataset(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Full runs with corrupt labels, and with clean ones where nothing else differs, under each data set."""
    if runs.empty:
        return {}
    clean = [_with_clean_labels(RunRecord.read(place).config) for place in runs["folder"]]
    asked = {training for training, ratio in zip(clean, runs["label_noise"], strict=True) if ratio}
    rows = runs[[training in asked for training in clean]]
    return {f"full runs, {name}": group for name, group in rows.groupby("dataset_name")}


def _with_clean_labels(config: Config) -> str:
    """The identity of a training but for its labels and its seed."""
    return config.replace(label_noise=0.0, label_noise_excludes_truth=False, seed=0).digest


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


def curves(sources: Mapping[str, pd.DataFrame]) -> Curves:
    """Metrics of the runs with corrupt labels, a panel a title of theirs, network and ratio."""
    panels: Curves = {}
    for title, runs in sources.items():
        records = [RunRecord.read(folder) for folder in runs["folder"]]
        corrupt = [record for record in records if record.config.label_noise]
        corrupt.sort(key=lambda record: (record.config.label_noise, METHODS.index(record.config.method)))
        for record, name in zip(corrupt, names([record.config for record in corrupt]), strict=True):
            config = record.config
            panel = f"{title}\n{network_at(config.network, config.label_noise, config.label_noise_excludes_truth)}"
            panels.setdefault(panel, {}).setdefault(name, []).append(record.metrics)
    return panels


def falls(errors: Samples, networks: Sequence[str]) -> list[float]:
    """Points that the baseline's error rises by from each of the networks' rows to the next."""
    return np.diff([errors[network, "baseline"].mean for network in networks]).tolist()
