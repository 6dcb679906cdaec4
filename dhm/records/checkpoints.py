"""Files of tensors: written whole or not at all, read without running code."""

import argparse
import datetime
import os
import pathlib
import re
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import nn

from dhm.errors import InputError

PARTIAL = ".*.partial"
"""Pattern of files that are not whole yet."""
_ARRAYS = [getattr(np._core.multiarray, name) for name in ("scalar", "_reconstruct")]  # type: ignore[attr-defined]
_PLAIN: list[Any] = [
    argparse.Namespace, types.SimpleNamespace, frozenset, range, slice,
    datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone,
    *((getattr(pathlib, f"Pure{kind}"), f"{module}.{kind}")
      for module in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")),
    np.ndarray, np.dtype, *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((made, f"numpy.{core}.multiarray.{made.__name__}") for core in ("core", "_core") for made in _ARRAYS),
]  # fmt: skip
"""What programs save beside the weights and what can do no more than hold values: reading it runs no code."""


def write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it."""
    with _whole(path) as partial:
        partial.write_bytes(content)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Save tensors and plain values, or tensors alone where the name ends in .safetensors; a reader sees the old file
    or the new, never half of it."""
    with _whole(path) as partial:
        if path.suffix == ".safetensors":
            tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in content.items()}
            _safetensors(path).save_file(tensors, partial, metadata={"format": "pt"})
        else:
            torch.save(dict(content), partial)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when all of it is on the disk."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    yield partial
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def load(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint or a file of safetensors onto the CPU, as tensors and plain values only.

    Raises:
        InputError: the file is missing, damaged, or holds more than tensors and plain values; the sentence names what.
    """
    try:
        if _is_safetensors(path):
            return _safetensors(path).load_file(path)
        with torch.serialization.safe_globals(_PLAIN):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}") from None
    except InputError:
        raise
    except Exception as error:  # an unpickler raises whatever bytes that are none of its lead it to
        raise InputError(_reason(path, str(error).strip() or type(error).__name__)) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


def _reason(path: str | os.PathLike, told: str) -> str:
    """Why a file cannot be read, in a sentence."""
    strange, inner = re.search(r"GLOBAL (\S+)", told), re.search(r"WeightsUnpickler error: (.+)", told)
    if strange:
        words = f"it holds {strange[1]}, which may run code and is not read; save the network's state_dict() alone"
    elif "TorchScript" in told:
        words = "it is a program of TorchScript, which is not run; save the network's state_dict()"
    elif told.startswith("Weights only"):  # pages on how to trust it
        words = inner[1][:120] if inner else "its bytes are none that torch writes"
    else:
        words = told.splitlines()[0][:120]
    return f"{path} is damaged or no checkpoint of tensors ({words})"


def _is_safetensors(path: str | os.PathLike) -> bool:
    """Whether a file begins as safetensors do: the length of a header, and a header in JSON."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= os.path.getsize(path) - 8


def _safetensors(path: str | os.PathLike) -> Any:
    try:
        from safetensors import torch as safetensors
    except ImportError:
        raise InputError(f"{path} needs the package safetensors, which is missing; install it") from None
    return safetensors


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
