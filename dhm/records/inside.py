"""Files of a run record, read as what they must be: regular, in its folder, of a size that is read, and of one form."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dhm.errors import InputError

MOST = 2**28
"""Bytes of a file; the predictions of ImageNet's 50,000 images take a hundredth of it."""


def content(file: Path) -> bytes:
    """All of a file.

    Raises:
        InputError: it is a pipe, a device or a folder, or larger than `MOST`.
        OSError: it cannot be read.
    """
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is no regular file; put the file itself there")
    with open(file, "rb") as opened:
        size = file.stat().st_size
        if size > MOST:
            raise InputError(f"{file} has {size:,} bytes, more than the {MOST:,} that are read of such a file")
        return opened.read()


def own_content(folder: Path, name: str) -> bytes:
    """All of a file that lies in a folder itself.

    Raises:
        InputError: as `content` and `own_file`; or it cannot be read.
    """
    try:
        return content(own_file(folder, name))
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # a link in a circle is the latter in some versions of Python
        raise InputError(f"{folder / name} cannot be read: {getattr(error, 'strerror', error)}") from None


def own_file(folder: Path, name: str) -> Path:
    """A file that lies in a folder itself, of any size.

    Raises:
        InputError: it is a link out of the folder.
    """
    file = folder / name
    if file.resolve().parent != folder.resolve():
        raise InputError(f"{file} is a link out of the record; put the file itself there")
    return file


def refuse_links(folder: Path) -> None:
    """See that what is written to a record stays in it.

    Raises:
        InputError: something in its folder is a link.
    """
    link = next((entry for entry in sorted(folder.iterdir()) if entry.is_symlink()), None) if folder.is_dir() else None
    if link is not None:
        raise InputError(f"{link} is a link, through which a training would write elsewhere; put the file itself there")


def parsed(text: str) -> Any:
    """What a text in JSON says.

    Raises:
        ValueError: it is none, or nested deeper than anything this program writes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def mapping(text: str) -> dict[str, Any]:
    """The settings that a config.json holds; ValueError if it holds anything else."""
    values = parsed(text)
    if not isinstance(values, dict):
        raise ValueError("it holds no settings")
    return values


def starts(text: str) -> list[dict[str, Any]]:
    """The entries of env.json; ValueError if it holds anything else."""
    entries = parsed(text)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("it holds no list of starts")
    return entries


def epochs(text: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; ValueError if it holds anything else."""
    lines = [parsed(line) for line in text.splitlines()]
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or not _is_table(line.get("test", {})) or not _are_numbers(line.get("train", {})):
            raise ValueError(f"its line {number} holds no figures of an epoch")
    return lines


def outcome(text: str) -> dict[str, Any]:
    """What result.json holds; ValueError if it holds anything else."""
    result = parsed(text)
    places = [result.get(which) for which in ("last", "best")] if isinstance(result, dict) else [None]
    if not all(isinstance(place, dict) and _is_table(place.get("heads")) for place in places) or not _is_number(
        result.get("seconds")
    ):
        raise ValueError("it holds no figures of a finished run")
    return result


def _is_table(values: Any) -> bool:
    """Whether it is numbers by name, by classifier."""
    return isinstance(values, Mapping) and all(_are_numbers(row) for row in values.values())


def _are_numbers(values: Any) -> bool:
    return isinstance(values, Mapping) and all(_is_number(value) for value in values.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
