"""What a training method costs and what it buys."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch

from dhm.analysis.evidence.results import gain_table, samples
from dhm.analysis.statistics import Gain, Sample
from dhm.analysis.variants import names, spoken
from dhm.config import METHODS, Config
from dhm.flops import inference_flops, training_flops
from dhm.records.record import RunRecord
from dhm.training.estimate import duration
from dhm.zoo import network_of

COLUMNS = {
    "training": "multiply-adds of training", "relative": "× baseline", "parameters": "parameters trained",
    "inference": "multiply-adds of an answer",
}  # fmt: skip


def planned(configs: Sequence[Config], images: int, image_size: int) -> pd.DataFrame:
    """What trainings would cost on a data set, a row a network and variant.

    Returns:
        training: multiply-adds of the whole training, forward and backward; relative: as a multiple of the baseline's;
        parameters: trained; inference: multiply-adds of an answer to one image.
    """
    rows = {
        (config.network, name): _cost(config, images, image_size)
        for config, name in zip(configs, names(configs), strict=True)
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["network", "variant"])
    plain = {network: table["training"].get((network, "baseline")) for network, _ in rows}
    table.insert(
        1, "relative", [cost / (plain[network] or float("nan")) for (network, _), cost in table["training"].items()]
    )
    return table


def _cost(config: Config, images: int, image_size: int) -> dict[str, Any]:
    with torch.device("meta"):
        net = network_of(config)
        answer = inference_flops(net, image_size)
    training = float(training_flops(config, image_size)) * images * config.epochs
    return {"training": training, "parameters": sum(p.numel() for p in net.parameters()), "inference": answer}


def schedules(configs: Sequence[Config]) -> pd.DataFrame:
    """How long each variant is trained, and when its learning rate falls."""
    rows = {
        spoken(name): {
            "epochs": config.epochs,
            "learning rate": f"× {config.gamma:g} at {', '.join(map(str, config.milestones))}",
        }
        for config, name in zip(configs, names(configs), strict=True)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant")


def prices(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs (`dhm.load_runs`) on one data set: what `planned` says of them, and `error`, B0's top-1 error after
    the last epoch in percent, a `Sample` over seeds."""
    records = [RunRecord.read(folder) for folder in runs["folder"]]
    result = records[0].result
    assert result is not None, "the run is not finished"
    table = planned([record.config for record in records], result["data"]["train_images"], result["data"]["image_size"])
    errors = samples(runs)
    table.insert(0, "error", [errors[row] for row in table.index])
    return table


def told_apart(gains: Sequence[Gain]) -> pd.DataFrame:
    """Gains of which the paper prints none: whether their intervals leave out zero."""
    words = {gain.label: "lower" if gain.low > 0 else "higher" if gain.high < 0 else "not told apart" for gain in gains}
    return gain_table(gains, words).rename(columns={"verdict": "error of the first named is"})


def by_epoch(records: Iterable[RunRecord]) -> dict[str, dict[str, tuple[float, list[list[dict[str, Any]]]]]]:
    """Experiment -> method -> multiply-adds of an epoch of its training, and the metrics of its runs."""
    found: dict[str, dict[str, tuple[float, list[list[dict[str, Any]]]]]] = {}
    for record in sorted(records, key=lambda record: (record.config.experiment, METHODS.index(record.config.method))):
        if (result := record.result) is not None:
            config, data = record.config, result["data"]
            epoch = training_flops(config, data["image_size"]) * data["train_images"]
            runs = found.setdefault(config.experiment, {}).setdefault(config.method, (float(epoch), []))
            runs[1].append(record.metrics)
    return found


def spent(records: Iterable[RunRecord]) -> list[str]:
    """A sentence an experiment: how many finished runs, their time, and on what they ran."""
    groups: dict[str, list[tuple[float, set[str]]]] = {}
    for record in records:
        if (result := record.result) is not None:
            devices = {f"{entry['device']}, {entry['threads']} thread(s)" for entry in record.environment}
            groups.setdefault(record.config.experiment, []).append((result["seconds"], devices))
    return [
        f"**{name}**: {len(runs)} runs, {duration(sum(seconds for seconds, _ in runs))} in all on "
        + "; ".join(sorted(set().union(*(devices for _, devices in runs))))
        for name, runs in sorted(groups.items())
    ]


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`planned` or `prices` as a notebook prints it."""
    formats = {"training": "{:.3g}", "relative": "{:.2f}", "parameters": "{:,}", "inference": "{:,}"}
    out = pd.DataFrame({COLUMNS[name]: table[name].map(formats[name].format) for name in COLUMNS})
    if "error" in table:
        out.insert(0, "top-1 error of B0 (%)", table["error"].map(Sample.__str__))
    return out.rename(index=spoken, level="variant")
