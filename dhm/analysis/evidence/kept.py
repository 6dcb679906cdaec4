"""What is kept of a finished run when its checkpoints are thrown away.

Beside the record itself (`dhm.records.record`), what only the trained network can tell:

    gradients.csv    cosines of the classifiers' gradients to the shared trunk (`features.gradients`), by loss
    likeness.csv     correlations of the branches' kernels with their nulls, and CKA (`features.likeness`)
    kernels.npz      the max-kernel matrices behind them, <layer>/B0 and <layer>/B2
"""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from dhm.analysis.evidence.results import grouped
from dhm.analysis.features import correlation, likeness
from dhm.analysis.features.gradients import consistency, held_out, sharing
from dhm.branches import MAIN, BranchedNet
from dhm.data import Images, load_test
from dhm.errors import InputError
from dhm.losses import DHMLoss
from dhm.records.record import FILES, RunRecord
from dhm.records.weights import load_trained

HELD_OUT, MICRO = 2048, 128
"""Test images that gradients and CKA are measured on, and those of a micro-batch."""
PERMUTATIONS = 199
COLUMNS = {
    "gradients.csv": {**dict.fromkeys(("first", "second", "loss"), str), "cosine": float},
    "likeness.csv": {**dict.fromkeys(("layer", "statistic"), str), "observed": float},
}
"""What each table must tell, and whether in words or in numbers."""
LOSSES = {"cross-entropy": "dsl", "full": "dhm"}
"""Which gradients: of the cross-entropies alone, and with the mimicking terms a DHM run also has."""


def keep(record: RunRecord, records_dir: Path, data_dir: str | Path | None = None) -> RunRecord:
    """Copy a finished run without its checkpoints to `records_dir`, with what its last checkpoint tells.

    A run that is there already is left as it is.

    Raises:
        InputError: the run is not finished.
    """
    if record.result is None:
        raise InputError(f"{record.folder} is not finished; train it to its end first")
    target = RunRecord.of(record.config, records_dir)
    if target.result is not None:
        return target
    measured = _measured(record, data_dir)
    target.create()
    for name, content in measured.items():
        target.write(name, content)
    for name in FILES[:-1]:
        target.write(name, record.content(name))
    target.finish(record.result)
    return target


def _measured(record: RunRecord, data_dir: str | Path | None) -> dict[str, bytes]:
    """File name -> content; nothing where no two classifiers share a layer, or test images are streamed or searched."""
    net = load_trained(record)
    if not sharing(net) or record.config.streamed:
        return {}
    images = load_test(record.config, data_dir)[0]
    if not isinstance(images, Images) or images.task is not None:
        return {}
    losses = LOSSES if record.config.method == "dhm" else {"cross-entropy": "dsl"}
    gradients = [
        consistency(net, held_out(images, MICRO, HELD_OUT), DHMLoss(method), "batch").assign(loss=loss)
        for loss, method in losses.items()
    ]
    found = {"gradients.csv": _csv(pd.concat(gradients))}
    return {**found, **_alike(net, images)} if "B2" in net.heads else found


def _alike(net: BranchedNet, images: Images) -> dict[str, bytes]:
    try:
        pairs = correlation.paired_layers(net)
    except InputError:  # a B2 without blocks, or with wider ones
        return {}
    pairs = {layer: pairs[layer] for layer in likeness.spread(list(pairs))}
    matrices = {
        f"{layer}/{head}": matrix.astype(np.float32)
        for layer, pair in pairs.items()
        for head, matrix in zip((MAIN, "B2"), pair, strict=True)
    }
    kernels = io.BytesIO()
    np.savez_compressed(kernels, **matrices)  # type: ignore[arg-type]
    alike = likeness.table(pairs, PERMUTATIONS, np.random.default_rng(0))
    cka = likeness.cka(net, next(held_out(images, HELD_OUT, HELD_OUT))[0])
    row = pd.DataFrame([{"layer": "descriptor", "statistic": "CKA", "observed": cka}])
    return {"likeness.csv": _csv(pd.concat([alike, row])), "kernels.npz": kernels.getvalue()}


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.6g").encode()


def gradients(records: Iterable[RunRecord]) -> pd.DataFrame:
    """The kept gradient tables of all records, with experiment, method and seed, in the order of methods
    that all figures have; empty where none has one."""
    return _gathered(records, "gradients.csv")


def likenesses(records: Iterable[RunRecord]) -> pd.DataFrame:
    """The kept correlations of all records, likewise; CKA is the row whose layer is "descriptor"."""
    return _gathered(records, "likeness.csv")


def kernels(record: RunRecord) -> dict[str, tuple[correlation.Matrix, correlation.Matrix]]:
    """The kept max-kernel matrices of a run: layer -> (B0's, B2's)."""
    arrays = record.arrays("kernels.npz")
    layers = dict.fromkeys(name.rpartition("/")[0] for name in arrays)
    return {layer: (arrays[f"{layer}/{MAIN}"], arrays[f"{layer}/B2"]) for layer in layers}


def likeness_maps(records: Iterable[RunRecord], reading: str) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Experiment -> layer -> method -> map of the first seed's kept matrices, where DSL and DHM have some."""
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for name, methods in grouped(records).items():
        with_kernels = {method: [run for run in runs if _has(run, "kernels.npz")] for method, runs in methods.items()}
        pairs = {method: kernels(runs[0]) for method, runs in with_kernels.items() if runs}
        if {"dsl", "dhm"} <= set(pairs):
            found[name] = likeness.maps(pairs, reading)
    return found


def _table(record: RunRecord, name: str) -> pd.DataFrame:
    """A kept table.

    Raises:
        InputError: it is none, or lacks a column or has words in one of numbers.
    """
    columns = COLUMNS[name]
    try:
        table = pd.read_csv(io.BytesIO(record.content(name)))
        return table.astype(columns)
    except (ValueError, KeyError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        told = str(error).strip().splitlines()[0]
        raise InputError(f"{record.folder / name} is no table of {', '.join(columns)}: {told}") from None


def _gathered(records: Iterable[RunRecord], name: str) -> pd.DataFrame:
    tables = [
        _table(run, name).assign(experiment=experiment, method=method, seed=run.config.seed)
        for experiment, methods in grouped(records).items()
        for method, runs in methods.items()
        for run in runs
        if _has(run, name)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _has(run: RunRecord, name: str) -> bool:
    return (run.folder / name).is_file()
