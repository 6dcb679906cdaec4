"""Files of tensors: written whole or not at all, read without running code."""

import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from dhm.errors import InputError

PARTIAL = ".*.partial"
"""Pattern of files that are not whole yet."""


def write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it."""
    with _whole(path) as partial:
        partial.write_bytes(content)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Save tensors and plain values; a reader sees the old file or the new, never half of it."""
    with _whole(path) as partial:
        torch.save(dict(content), partial)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when all of it is on the disk."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    yield partial
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, as tensors and plain values only.

    Raises:
        InputError: the file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} is damaged or no checkpoint of tensors ({reason})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


def load_into(net: nn.Module, state: Mapping[str, torch.Tensor], path: str | Path, name: str) -> None:
    """Load a state dict that must fit to the last tensor.

    Raises:
        InputError: tensors are missing, left over or of another shape; the sentence names the first.
    """
    own = net.state_dict()
    for key in own:
        if key not in state:
            raise InputError(f"{path} does not fit {name}: it has no tensor {key}")
        if state[key].shape != own[key].shape:
            raise InputError(
                f"{path} does not fit {name}: {key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
            )
    extra = next((key for key in state if key not in own), None)
    if extra is not None:
        raise InputError(f"{path} does not fit {name}: it has a tensor {extra} that the network has not")
    net.load_state_dict(state)
