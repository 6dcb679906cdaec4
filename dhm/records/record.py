"""Run records: the folder a training leaves behind, and the only bridge to what reads it.

runs/<experiment>/<network>-<method>-s<seed>-<digest>/
    config.json             what was asked for
    env.json                where it ran, one entry for every time it was started
    metrics.jsonl           a line an epoch
    predictions-last.npz    of the test images, by every classifier; predictions-best.npz likewise
    last.pt, best.pt        network (and optimizer, to go on from) after the last and the best epoch
    result.json             written last: where it stands, the run is complete
"""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dhm import paths
from dhm.config import Config
from dhm.errors import InputError
from dhm.metrics.classification import Predictions
from dhm.metrics.retrieval import Found
from dhm.records import checkpoints

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class RunRecord:
    """The record of one run, finished or not; what it reads is read when asked for.

    Attributes:
        writes: whether this process writes; of several that train together only the first does.
    """

    folder: Path
    config: Config
    writes: bool = True

    @classmethod
    def of(cls, config: Config, runs_dir: str | Path | None = None) -> "RunRecord":
        """The record a configuration has or will have."""
        return cls(paths.runs_dir(runs_dir) / config.experiment / config.name, config)

    @classmethod
    def read(cls, folder: str | Path) -> "RunRecord":
        """The record in a folder.

        Raises:
            InputError: the folder holds no readable config.json, or one of a later version of this program.
        """
        folder = Path(folder)
        try:
            values = json.loads((folder / "config.json").read_text())
        except FileNotFoundError:
            raise InputError(f"{folder} is no run record: it has no config.json") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}/config.json cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"{folder}/config.json holds no settings")
        return cls(folder, Config.from_dict(values))

    @property
    def result(self) -> dict[str, Any] | None:
        """What the finished run came to; None while it is not finished."""
        return self._read("result.json", json.loads)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One entry an epoch: losses by term, errors by classifier, learning rate, seconds."""
        return self._read("metrics.jsonl", lambda text: [json.loads(line) for line in text.splitlines()]) or []

    @property
    def environment(self) -> list[dict[str, Any]]:
        """Where and with what it ran, one entry for every time it was started."""
        return self._read("env.json", _starts) or []

    def _read(self, name: str, parse: Callable[[str], Any]) -> Any:
        """What a file of the record holds; None if it is not there.

        Raises:
            InputError: it is damaged, which no stop of a training leaves behind.
        """
        file = self.folder / name
        try:
            return parse(file.read_text()) if file.is_file() else None
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file} cannot be read ({error}): put a whole copy there, or move it away to go on from the last "
                "checkpoint without it"
            ) from None

    def predictions(self, which: str = "last") -> Predictions:
        """Predictions on the test images after the "last" or the "best" epoch."""
        with np.load(self.folder / f"predictions-{which}.npz") as arrays:
            return Predictions.from_arrays(arrays)

    def found(self, which: str = "last") -> Found:
        """What a search of a re-identification run found after the "last" or the "best" epoch."""
        with np.load(self.folder / f"predictions-{which}.npz") as arrays:
            return Found.from_arrays(arrays)

    def create(self) -> None:
        """Make the folder and write the configuration.

        Raises:
            InputError: the folder cannot be written to.
        """
        if not self.writes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write_json("config.json", self.config.to_dict())
        except OSError as error:
            raise InputError(f"the run record {self.folder} cannot be written: {error.strerror}") from None

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the record as JSON."""
        self.write(name, (json.dumps(content, indent=1) + "\n").encode())

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Write the metrics of all epochs so far."""
        self.write("metrics.jsonl", "".join(json.dumps(x) + "\n" for x in lines).encode())

    def write_predictions(self, which: str, predictions: Predictions | Found) -> None:
        """Write the predictions of the "last" or "best" epoch."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **predictions.arrays())  # type: ignore[arg-type]
        self.write(f"predictions-{which}.npz", buffer.getvalue())

    def write_checkpoint(self, which: str, content: Mapping[str, Any]) -> None:
        """Write the checkpoint of the "last" or "best" epoch."""
        if self.writes:
            checkpoints.save(self.folder / f"{which}.pt", content)

    def sweep(self) -> None:
        """Remove what a process that was killed left half-written; to be called by the one that trains the run.

        Configurations stay: another process writes its own before it finds that the run is being trained.
        """
        if self.writes:
            for leftover in self.folder.glob(checkpoints.PARTIAL):
                if not leftover.name.startswith(".config.json."):
                    leftover.unlink()

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the record whole."""
        if self.writes:
            checkpoints.write(self.folder / name, content)


def _starts(text: str) -> list[dict[str, Any]]:
    """The entries of env.json; ValueError if it holds anything else."""
    entries = json.loads(text)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("it holds no list of starts")
    return entries


def find(*folders: str | Path) -> Iterator[RunRecord]:
    """All records below the folders, broken ones named in a warning and passed over; of a finished run that was copied
    from one place to another only the first."""
    finished = set()
    for folder in folders:
        for file in sorted(Path(folder).rglob("config.json")):
            try:
                record = RunRecord.read(file.parent)
            except InputError as error:
                warnings.warn(f"run record passed over: {error}", stacklevel=2)
                continue
            name = record.config.experiment, record.config.name
            if name in finished:
                continue
            if (record.folder / "result.json").is_file():
                finished.add(name)
            yield record


def load_runs(*folders: str | Path) -> "pandas.DataFrame":
    """Finished runs as a table, one row a run: identity, settings, and `<head>/<metric>` of the last and best epoch.

    Args:
        folders: where to look; by default the local runs and the committed records.
    """
    import pandas

    places = folders or (paths.runs_dir(), paths.records_dir())
    rows = []
    for record in find(*places):
        try:
            result = record.result
        except ValueError as error:
            warnings.warn(f"run record passed over: {error}", stacklevel=2)
            continue
        if result is not None:
            rows.append(_row(record, result))
    return pandas.DataFrame(rows)


def _row(record: RunRecord, result: Mapping[str, Any]) -> dict[str, Any]:
    config = record.config
    row = {"experiment": config.experiment, "network": config.network, "dataset_name": config.dataset_name}
    row |= {**config.to_dict(), "digest": config.digest}
    for which in ("last", "best"):
        for head, metrics in result[which]["heads"].items():
            row |= {f"{which}/{head}/{metric}": value for metric, value in metrics.items()}
    return {**row, "seconds": result["seconds"], "folder": str(record.folder)}
