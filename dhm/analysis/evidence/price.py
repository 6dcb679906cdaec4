"""What a training method costs and what it buys."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch

from dhm.analysis.evidence.results import gain_table, grouped, samples
from dhm.analysis.statistics import Gain, Sample
from dhm.analysis.variants import names, spoken
from dhm.config import Config
from dhm.flops import inference_flops, training_flops
from dhm.records.record import RunRecord
from dhm.training.estimate import duration
from dhm.zoo import network_of

COLUMNS = {
    "training": ("multiply-adds of training", "{:.3g}"), "relative": ("× baseline", "{:.2f}"),
    "parameters": ("parameters trained", "{:,}"), "inference": ("multiply-adds of an answer", "{:,}"),
}  # fmt: skip
"""Column of `planned` -> how a notebook calls and prints it."""


def planned(configs: Sequence[Config], images: int, image_size: int) -> pd.DataFrame:
    """What trainings would cost on a data set, a row a network and variant.

    Returns:
        training: multiply-adds of the whole training, forward and backward; relative: as a multiple of the baseline's;
        parameters: trained; inference: multiply-adds of an answer to one image.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for config, name in zip(configs, names(configs), strict=True):
        with torch.device("meta"):
            net = network_of(config)
            answer = inference_flops(net, image_size)
        training = float(training_flops(config, image_size)) * images * config.epochs
        parameters = sum(p.numel() for p in net.parameters())
        rows[config.network, name] = {"training": training, "parameters": parameters, "inference": answer}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["network", "variant"])
    cost, plain = table["training"], table.index.get_level_values("variant") == "baseline"
    table.insert(1, "relative", cost / cost.where(plain).groupby(level="network").transform("max"))
    return table


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
    data = _result(records[0])["data"]
    table = planned([record.config for record in records], data["train_images"], data["image_size"])
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
    for name, methods in grouped(records).items():
        for method, runs in methods.items():
            data = _result(runs[0])["data"]
            epoch = training_flops(runs[0].config, data["image_size"]) * data["train_images"]
            found.setdefault(name, {})[method] = float(epoch), [run.metrics for run in runs]
    return found


def spent(records: Iterable[RunRecord]) -> list[str]:
    """A sentence an experiment: how many finished runs, their time, and on what they ran."""
    sentences = []
    for name, methods in grouped(records).items():
        runs = [run for runs in methods.values() for run in runs]
        devices = {f"{entry['device']}, {entry['threads']} thread(s)" for run in runs for entry in run.environment}
        seconds = sum(_result(run)["seconds"] for run in runs)
        sentences.append(f"**{name}**: {len(runs)} runs, {duration(seconds)} in all on {'; '.join(sorted(devices))}")
    return sentences


def _result(run: RunRecord) -> dict[str, Any]:
    assert run.result is not None, "of finished runs"
    return run.result


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`planned` or `prices` as a notebook prints it."""
    out = pd.DataFrame({words: table[name].map(form.format) for name, (words, form) in COLUMNS.items()})
    if "error" in table:
        out.insert(0, "top-1 error of B0 (%)", table["error"].map(Sample.__str__))
    return out.rename(index=spoken, level="variant")
