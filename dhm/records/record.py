"""Run records: the folder a training leaves behind, and the only bridge to what reads it.

runs/<experiment>/<network>-<method>-s<seed>-<digest>/
    config.json             what was asked for
    env.json                where it ran, one entry for every time it was started
    metrics.jsonl           a line an epoch
    predictions-last.npz    of the test images, by every classifier; predictions-best.npz likewise
    last.pt, best.pt        network (and optimizer, to go on from) after the last and the best epoch
    previous.pt             the last but one, while the run is under way
    SHA256SUMS              the seal of the finished run, see `dhm.records.seal`
    result.json             written last: where it stands, the run is complete
"""

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dhm import paths
from dhm.config import Config
from dhm.errors import InputError
from dhm.metrics.classification import Predictions
from dhm.metrics.retrieval import Found
from dhm.records import checkpoints, inside, seal
from dhm.records.arrays import dumped, loaded

LAST, PREVIOUS, RESULT = "last.pt", "previous.pt", "result.json"
FILES = ("config.json", "env.json", "metrics.jsonl", "predictions-last.npz", "predictions-best.npz", RESULT)
"""Of every finished record; the result last, since it says that the record is whole."""
T = TypeVar("T", Predictions, Found)
_NAME = re.compile(r"-s\d+-[0-9a-f]{10}$")
"""How a folder's name ends that is a run's."""


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
            values = inside.mapping(inside.own_content(folder, "config.json").decode())
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{folder} is no run record: it has no config.json") from None
        except ValueError as error:
            raise InputError(f"{folder}/config.json cannot be read: {error}") from None
        try:
            config = Config.from_dict(values)
        except InputError as error:
            raise InputError(f"{folder}/config.json is no configuration of a run: {error}") from None
        if _NAME.search(folder.name) and not folder.name.endswith(config.digest):
            raise InputError(
                f"{folder}/config.json is not that of the run its folder is named after but of {config.name}: it is "
                "damaged or was edited"
            )
        record = cls(folder, config)
        record.content("config.json")  # against the seal
        return record

    @property
    def result(self) -> dict[str, Any] | None:
        """What the finished run came to; None while it is not finished."""
        return self._read(RESULT, inside.outcome)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One entry an epoch: losses by term, errors by classifier, learning rate, seconds."""
        return self._read("metrics.jsonl", inside.epochs) or []

    @property
    def environment(self) -> list[dict[str, Any]]:
        """Where and with what it ran, one entry for every time it was started."""
        return self._read("env.json", inside.starts) or []

    def _read(self, name: str, parse: Callable[[str], Any]) -> Any:
        """What a file of the record holds; None if it is not there.

        Raises:
            InputError: it is damaged, which no stop of a training leaves behind.
        """
        file = self.folder / name
        try:
            return parse(self.content(name).decode()) if file.is_file() else None
        except InputError:
            raise
        except ValueError as error:
            raise InputError(
                f"{file} cannot be read ({error}): put a whole copy there, or move it away to go on from the last "
                "checkpoint without it"
            ) from None

    @property
    def sealed(self) -> dict[str, str]:
        """The checksum of each file by its name; empty until the run is finished, and in records of older versions.

        Raises:
            InputError: the seal is damaged.
        """
        try:
            return seal.read(self.folder, FILES) if (self.folder / RESULT).is_file() else {}
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.folder / seal.NAME} is damaged ({error}): put a whole copy there; removed, the record is read "
                "unsealed"
            ) from None

    def content(self, name: str) -> bytes:
        """A file of the record, of a finished run held against its seal.

        Raises:
            InputError: it is not there, no file of its folder of a size that is read, or not what was sealed.
        """
        file = self.folder / name
        try:
            content = inside.own_content(self.folder, name)
        except FileNotFoundError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}") from None
        sealed = self.sealed
        if name in sealed and not seal.holds(content, sealed[name]):
            raise InputError(
                f"{file} is damaged: it is not what was sealed when the run was finished; put a whole copy there, or "
                "remove the record and train the run again"
            )
        return content

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a file of the record.

        Raises:
            InputError: as `content`, or it is damaged or would run code or fill the memory.
        """
        try:
            return loaded(self.content(name))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{self.folder / name} is damaged or no file of arrays: {error}") from None

    def predictions(self, which: str = "last") -> Predictions:
        """Predictions on the test images after the "last" or the "best" epoch."""
        return self._tested(which, Predictions)

    def found(self, which: str = "last") -> Found:
        """What a search of a re-identification run found after the "last" or the "best" epoch."""
        return self._tested(which, Found)

    def _tested(self, which: str, kind: type[T]) -> T:
        name = f"predictions-{which}.npz"
        try:
            return kind.from_arrays(self.arrays(name))
        except KeyError as missing:
            raise InputError(f"{self.folder / name} holds no {kind.__name__.lower()}: {missing} is missing") from None
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{self.folder / name} holds no {kind.__name__.lower()}: {error}") from None

    def checkpoint(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint to go on from that is whole; None if there is none at all.

        Raises:
            InputError: there are some, and all are damaged.
        """
        damaged = None
        for file in self._checkpoints():
            try:
                state = checkpoints.load(file)
            except InputError as error:
                damaged = damaged or error
                continue
            if damaged:
                warnings.warn(f"{damaged}; the run goes on from {file.name}, the one before", stacklevel=2)
            return file, state
        if damaged:
            raise InputError(
                f"{damaged}, and there is none before it: remove it to train the run again from its start, which loses "
                f"{len(self.metrics)} epochs"
            )
        return None

    def go_on_from(self, file: Path | None) -> None:
        """Put a checkpoint into the place of the last where that is damaged: the next would be made over the only whole
        one, and if it is cut off nothing is left. No process may still look for it."""
        if self.writes and file == self.folder / PREVIOUS:
            file.replace(self.folder / LAST)

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(self._checkpoints())

    def _checkpoints(self) -> list[Path]:
        """Those to go on from, the newest first."""
        return [file for file in (self.folder / LAST, self.folder / PREVIOUS) if file.is_file()]

    def create(self) -> None:
        """Make the folder and write the configuration.

        Raises:
            InputError: the folder cannot be written to, or holds a link that leads out of it.
        """
        if not self.writes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            inside.refuse_links(self.folder)
            self.write_json("config.json", self.config.to_dict())
        except OSError as error:
            raise InputError(f"the run record {self.folder} cannot be written: {error.strerror}") from None

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the record as JSON."""
        self.write(name, _json(content))

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Write the metrics of all epochs so far."""
        self.write("metrics.jsonl", "".join(json.dumps(x) + "\n" for x in lines).encode())

    def write_predictions(self, which: str, predictions: Predictions | Found) -> None:
        """Write the predictions of the "last" or "best" epoch."""
        self.write(f"predictions-{which}.npz", dumped(predictions.arrays()))

    def write_checkpoint(self, which: str, content: Mapping[str, Any]) -> None:
        """Write the checkpoint of the "last" or "best" epoch; of the last, the one before stays beside it."""
        if not self.writes:
            return
        file, previous = self.folder / f"{which}.pt", self.folder / PREVIOUS
        if file.name == LAST and file.is_file():
            try:  # a second name, so that there is a newest one at any moment
                previous.unlink(missing_ok=True)
                previous.hardlink_to(file)
            except OSError:  # a file system without them
                file.replace(previous)
        checkpoints.save(file, content)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Seal the record, and say that it is complete."""
        if not self.writes:
            return
        content = _json(result)
        self.write(seal.NAME, seal.of(self.folder, RESULT, content))
        self.write(RESULT, content)
        (self.folder / PREVIOUS).unlink(missing_ok=True)

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


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
