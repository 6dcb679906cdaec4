"""Whether a record is whole: every file held against its checksum, and read."""

from pathlib import Path

from dhm.errors import InputError
from dhm.records import checkpoints
from dhm.records.record import FILES, RESULT, RunRecord

STATES = SEALED, UNSEALED, UNFINISHED, DAMAGED = (
    "whole",
    "readable but unsealed",
    "readable but not finished",
    "damaged",
)
"""Unsealed are records of older versions: that their values are what was measured cannot be told."""
_READ = {"env.json": "environment", "metrics.jsonl": "metrics", RESULT: "result"}
"""What reads a file."""


def verify(folder: Path) -> tuple[str, list[str]]:
    """The state of a record, and for each damaged file a sentence."""
    try:
        record = RunRecord.read(folder)
        told = [*damage(record), *damaged_checkpoints(record)]
        if told:
            return DAMAGED, told
        finished = (folder / RESULT).is_file()
        return (SEALED if record.sealed else UNSEALED if finished else UNFINISHED), []
    except InputError as error:
        return DAMAGED, [str(error)]


def damage(record: RunRecord) -> list[str]:
    """What is wrong with the files of a record, checkpoints apart: a sentence for each that is not whole.

    Raises:
        InputError: the seal is damaged.
    """
    told = []
    for name in record.sealed or [name for name in FILES if (record.folder / name).is_file()]:
        try:
            if name.endswith(".npz"):
                record.arrays(name)
            elif name in _READ:
                getattr(record, _READ[name])
            else:
                record.content(name)
        except InputError as error:
            told.append(str(error))
    return told


def damaged_checkpoints(record: RunRecord) -> list[str]:
    """The same of its checkpoints, which hold a checksum of every tensor."""
    told = []
    for file in sorted(record.folder.glob("*.pt")):
        try:
            checkpoints.load(file)
        except InputError as error:
            told.append(str(error))
    return told
