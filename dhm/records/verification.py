"""Whether a record is whole: every file held against its checksum, and read."""

from pathlib import Path

from dhm.errors import InputError
from dhm.records.record import RESULT, RunRecord

STATES = SEALED, UNSEALED, UNFINISHED, DAMAGED = (
    "whole",
    "readable but unsealed",
    "readable but not finished",
    "damaged",
)
"""Unsealed are records of older versions: that their values are what was measured cannot be told."""


def verify(folder: Path) -> tuple[str, list[str]]:
    """The state of a record, and for each damaged file a sentence."""
    try:
        record = RunRecord.read(folder)
        told = [*record.damage(), *record.damaged_checkpoints()]
        if told:
            return DAMAGED, told
        finished = (folder / RESULT).is_file()
        return (SEALED if record.sealed else UNSEALED if finished else UNFINISHED), []
    except InputError as error:
        return DAMAGED, [str(error)]
