"""Where a training stands between two steps: written as a checkpoint, and gone on from."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dhm.errors import InputError
from dhm.records import checkpoints
from dhm.records.record import RunRecord
from dhm.training.parallel import gather
from dhm.training.step import Trainer


@dataclass
class Position:
    """Where a training stands between two steps, beside network and optimizer."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] | None = None  # of the epoch under way
    seconds: dict[str, float] = field(default_factory=dict)  # likewise
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    unreadable: list[str] = field(default_factory=list)  # training images left out
    starts: list[dict[str, Any]] = field(default_factory=list)  # what env.json held


def save(trainer: Trainer, record: RunRecord, at: Position) -> float:
    """Write the checkpoint a killed run goes on from; the time of it."""
    at.unreadable = unreadable(trainer)
    record.write_checkpoint("last", {**trainer.state(), "at": asdict(at)})
    return time.perf_counter()


def unreadable(trainer: Trainer) -> list[str]:
    """Training images that any process could not read."""
    found = gather(trainer.data.train.unreadable, trainer.fabric.world_size)
    return sorted(set().union(*found))


def resume(trainer: Trainer, record: RunRecord, seen: Mapping[str, Any]) -> Position:
    """Bring network and optimizer to the record's checkpoint, if there is one; where to go on from.

    Args:
        seen: summary of the data set, which must be what the run began with.

    Raises:
        InputError: what was found is damaged, of another run or of other images, or not the same for every process.
    """
    at, file = _found(trainer, record, seen)
    if len(set(gather((at.epoch, at.step), trainer.fabric.world_size))) > 1:
        raise InputError(
            f"the processes of this run do not find the same checkpoint in {record.folder}; the folder of the run "
            "records must be one that all hosts share"
        )
    record.go_on_from(file)
    return at


def _found(trainer: Trainer, record: RunRecord, seen: Mapping[str, Any]) -> tuple[Position, Path | None]:
    found = record.checkpoint()
    if found is None:
        return Position(), None
    file, state = found
    if record.environment and record.environment[-1].get("data", seen) != seen:
        raise InputError(
            f"{record.folder} was trained on other images than {trainer.config.dataset} holds now; "
            "restore the data set or remove that folder"
        )
    if state.keys() != {*trainer.state(), "at"}:
        raise InputError(f"{file} is no checkpoint of a run; remove it to start the run again")
    try:
        checkpoints.load_into(trainer.net, state["net"], file, trainer.config.network)
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.fabric.strategy.precision.load_state_dict(state.get("scale", {}))
        at = Position(**state["at"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is no checkpoint of this run ({error}); remove it to start the run again") from None
    if record.environment and record.environment[: len(at.starts)] != at.starts:
        raise InputError(
            f"{record.folder / 'env.json'} is not what the checkpoint was made under: it is damaged; put a whole copy "
            "there, or move it away to go on without it"
        )
    trainer.data.train.unreadable.update(at.unreadable)
    if not trainer.fabric.is_global_zero:
        at.sums = None  # the sums of all processes are gone on with by the first
    return at, file
