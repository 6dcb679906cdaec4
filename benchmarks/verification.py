"""What it costs that nothing damaged is believed: checkpoints and records with their checksums and without.

    python benchmarks/verification.py [--pairs 40] [--threads 2] [--folder DISK]

Each pair does the same work both ways, in random order; times are those of the processor, which other processes
disturb less, and their ratio is taken within a pair and its median bootstrapped. Below, what a checkpoint of a run that
writes one every 60 seconds takes of its training, by the clock, with the wait for the disk.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from ratios import interleaved, ratio

from dhm import Config
from dhm.metrics.classification import Predictions
from dhm.records import checkpoints, seal
from dhm.records.record import RunRecord
from dhm.training.parallel import connect
from dhm.training.step import prepare

EVERY = 60.0
"""Seconds of training between two checkpoints, as `fit` has it."""
NETWORKS = {"resnet32": 32, "resnet18": 64}
"""Networks under DHM, and the size of their images."""
Ways = dict[str, Callable[[], object]]
"""The same work "with" checksums and "without"."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=40)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--folder", type=Path, help="a folder on the disk to measure; a temporary one by default")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.pairs} pairs, {given.threads} threads; milliseconds of the processor")
    print(f"{'':<28}{'MB':>8}{'without':>9}{'with':>9}   ratio, 95 % bootstrap")
    shares = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for arch, size in NETWORKS.items():
            config = Config(arch=arch, image_size=size, batch_size=8)
            record, state = RunRecord.of(config, folder), trained(config)
            record.create()
            took = compare(f"{arch}, checkpoint written", record, written(record, state), given.pairs)
            compare(f"{arch}, checkpoint loaded", record, loaded(record), given.pairs)
            shares.append(f"{arch}: {1000 * took:.0f} ms by the clock, {100 * took / EVERY:.2f} % of the training")
        record = finished(Config(epochs=164, milestones=(81, 122)), Path(folder))
        compare("record, finished", record, sealed(record), given.pairs)
        compare("record, read", record, read(record), given.pairs)
    print(f"a checkpoint every {EVERY:.0f} s, with its checksums", *shares, sep="\n  ")


def compare(title: str, record: RunRecord, ways: Ways, pairs: int) -> float:
    """Print a line of the table.

    Returns:
        Seconds by the clock of the work with checksums, the median.
    """
    seconds = interleaved(ways, pairs, time.process_time, warm_up=3)
    files = [record.folder / "last.pt"] if record.begun else list(record.folder.iterdir())
    size = sum(file.stat().st_size for file in files) / 1e6
    without, both = (1000 * np.median(seconds[way]) for way in ("without", "with"))
    print(f"{title:<28}{size:>8.2f}{without:>9.2f}{both:>9.2f}   {ratio(seconds, 'with', 'without')}")
    return float(np.median(interleaved({"with": ways["with"]}, 10)["with"]))


def trained(config: Config) -> dict:
    """What a checkpoint holds after a step: weights and momenta of trunk and branches."""
    trainer = prepare(config, connect("cpu", config.precision))
    trainer.begin(0)
    images, labels = next(iter(trainer.batches(0)))
    trainer.step(0, 0, images, labels)
    return {**trainer.state(), "at": {"epoch": 0, "step": 1}}


@contextmanager
def unsummed() -> Iterator[None]:
    """Checkpoints are written without a checksum."""
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(True)


def written(record: RunRecord, state: dict) -> Ways:
    def without() -> None:
        with unsummed():
            record.write_checkpoint("last", state)

    return {"with": lambda: record.write_checkpoint("last", state), "without": without}


def loaded(record: RunRecord) -> Ways:
    record.write_checkpoint(
        "last", {**checkpoints.load(record.folder / "last.pt")}
    )  # with checksums, whichever was last

    def without() -> None:
        with mock.patch.object(checkpoints, "_see_whole"):
            checkpoints.load(record.folder / "last.pt")

    return {"with": lambda: checkpoints.load(record.folder / "last.pt"), "without": without}


def finished(config: Config, folder: Path) -> RunRecord:
    """A record of the size of the paper's: all its epochs, predictions of 10,000 images by three classifiers."""
    record, draw = RunRecord.of(config, folder), np.random.default_rng(0)
    record.create()
    heads = {head: dict.fromkeys(("top1_error", "top5_error", "nll", "ece"), 1 / 3) for head in ("B0", "B1", "B2")}
    terms = {f"{kind}/B{number}": 1 / 3 for kind in ("ce", "accuracy", "kl") for number in range(3)}
    line = {"epoch": 0, "lr": 0.1, "train": terms, "test": heads, "seconds": {"train": 1 / 3, "test": 1 / 3},
            "unreadable": 0}  # fmt: skip
    record.write_metrics([{**line, "epoch": epoch} for epoch in range(config.epochs)])
    record.write_json("env.json", [{"started": "now", "data": {}}])
    rows = draw.random((3, 10_000))
    ranks = draw.integers(0, 100, rows.shape)
    for which in ("last", "best"):
        predicted = Predictions(tuple(heads), draw.integers(0, 100, 10_000), ranks, rows, rows, ranks)
        record.write_predictions(which, predicted)
    place = {"epoch": config.epochs - 1, "heads": heads}
    record.finish({"last": place, "best": place, "seconds": 1.0})
    return record


def sealed(record: RunRecord) -> Ways:
    result = record.result
    assert result is not None
    return {"with": lambda: record.finish(result), "without": lambda: record.write_json("result.json", result)}


def read(record: RunRecord) -> Ways:
    """Every file of it, as a page reads it."""

    def everything() -> None:
        again = RunRecord.read(record.folder)
        _ = again.environment, again.metrics, again.result, again.predictions("last"), again.predictions("best")

    def without() -> None:
        with mock.patch.object(seal, "read", return_value={}):
            everything()

    return {"with": everything, "without": without}


if __name__ == "__main__":
    main()
