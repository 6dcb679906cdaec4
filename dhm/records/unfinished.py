"""Runs a machine could not finish, set aside with their last checkpoint so that any other goes on with them.

    data/unfinished/<experiment>/<run>/     config.json, env.json, metrics.jsonl, predictions-best.npz, last.pt

The checkpoint of the best epoch stays behind: its predictions are here, and a later epoch may still be better.
"""

import shutil
from pathlib import Path

from dhm import paths
from dhm.config import Config
from dhm.errors import InputError
from dhm.records import checkpoints
from dhm.records.inside import own_content, own_file
from dhm.records.record import RunRecord

CHECKPOINT = "last.pt"
FILES = ("env.json", "metrics.jsonl", "predictions-best.npz")
"""What goes on with a run beside its checkpoint; the configuration is written anew, of the experiment it goes on in."""


def set_aside(record: RunRecord) -> RunRecord:
    """Copy an unfinished run to `data/unfinished`, over what an earlier stop left there.

    Raises:
        InputError: the run has no checkpoint to go on from.
    """
    if not (record.folder / CHECKPOINT).is_file():
        raise InputError(f"{record.folder} has no {CHECKPOINT}: nothing of it can be gone on with")
    target = RunRecord.of(record.config, paths.unfinished_dir())
    _copy(record.folder, target)
    return target


def take_over(record: RunRecord, folder: str | Path | None = None) -> None:
    """Bring a run that was set aside into its own record, unless that has a checkpoint already.

    Args:
        folder: where the run may lie beside its place in `data/unfinished`; another run there is let alone.

    Raises:
        InputError: there is no such folder, or what is set aside is damaged.
    """
    if not record.writes or record.begun:
        return
    places = [paths.existing(folder)] if folder else []
    for place in (*places, RunRecord.of(record.config, paths.unfinished_dir()).folder):
        if (place / CHECKPOINT).is_file() and RunRecord.read(place).config.digest == record.config.digest:
            _copy(place, record)
            return


def discard(config: Config) -> None:
    """Remove what was set aside of a run, which is finished now."""
    shutil.rmtree(RunRecord.of(config, paths.unfinished_dir()).folder, ignore_errors=True)


def _copy(source: Path, target: RunRecord) -> None:
    """The checkpoint appears last, since it says that the rest is there, but is read first: where the run is trained
    meanwhile, what is kept of its best epoch may be ahead of it and not behind."""
    target.create()
    with checkpoints.whole(target.folder / CHECKPOINT) as partial:
        shutil.copyfile(own_file(source, CHECKPOINT), partial)
        for name in FILES:
            if (source / name).is_file():
                checkpoints.write(target.folder / name, own_content(source, name))
