"""The seal of a finished run: a checksum of every file, against which each is held when it is read.

It is written in the form of `sha256sum`, which checks a record too: `sha256sum --check SHA256SUMS` in its folder.
Checkpoints are left out, since they hold checksums of their own, and so is what others put there.
"""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path

from dhm.records.inside import own_content

NAME = "SHA256SUMS"
_SUFFIXES = (".json", ".jsonl", ".npz", ".csv")
_NAMES = re.compile(r"[^/\\\0]+")
"""Of files in the folder itself."""


def of(folder: Path, result: str, content: bytes) -> bytes:
    """The seal of what lies in a folder and of the file `result`, which is written after it."""
    files = [file for file in folder.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith(".")]
    digests = {file.name: _digest(file.read_bytes()) for file in files} | {result: _digest(content)}
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def read(folder: Path, expected: Collection[str]) -> dict[str, str]:
    """The checksum of each file by its name; empty where a folder has no seal, as records of older versions.

    Args:
        expected: files that must be sealed if they are there.

    Raises:
        ValueError: the seal itself is damaged.
    """
    file = folder / NAME
    if not file.is_file():
        return {}
    lines = [line.partition("  ") for line in own_content(folder, NAME).decode().splitlines()]
    if not all(len(digest) == 64 and _NAMES.fullmatch(name) for digest, _, name in lines):
        raise ValueError("its lines are not those of sha256sum")
    sealed = {name: digest for digest, _, name in lines}
    unnamed = next((name for name in expected if name not in sealed and (folder / name).exists()), None)
    if unnamed is not None:
        raise ValueError(f"it does not name {unnamed}")
    return sealed


def holds(content: bytes, digest: str) -> bool:
    """Whether a file's content is what was sealed."""
    return _digest(content) == digest


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
