"""Files of tensors: written whole or not at all, read without running code and only if no byte of them has changed."""

import argparse
import datetime
import os
import pathlib
import re
import types
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import nn

from dhm.errors import InputError

PARTIAL = ".*.partial"
"""Pattern of files that are not whole yet."""
_MOST_STEPS = 2**20


def _short_range(*bounds: int) -> range:
    """A range that may be made a set or a list of."""
    if len(steps := range(*bounds)) > _MOST_STEPS:
        raise ValueError(f"a range of {len(steps):,} steps is more than a program saves beside its weights")
    return steps


_ARRAYS = [getattr(np._core.multiarray, name) for name in ("scalar", "_reconstruct")]  # type: ignore[attr-defined]
_PLAIN: list[Any] = [
    argparse.Namespace, types.SimpleNamespace, frozenset, slice,
    *((_short_range, f"{module}.range") for module in ("builtins", "__builtin__")),
    datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone,
    *((getattr(pathlib, f"Pure{kind}"), f"{module}.{kind}")
      for module in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")),
    np.ndarray, np.dtype, *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((made, f"numpy.{core}.multiarray.{made.__name__}") for core in ("core", "_core") for made in _ARRAYS),
]  # fmt: skip
"""What programs save beside the weights and what can do no more than hold values: reading it runs no code."""


def write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it.

    Raises:
        InputError: the disk is full, gone or not to be written to; the old file stands.
    """
    with whole(path) as partial:
        partial.write_bytes(content)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Save tensors and plain values, or tensors alone where the name ends in .safetensors, likewise."""
    with whole(path) as partial:
        if path.suffix == ".safetensors":
            tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in content.items()}
            _safetensors(path).save_file(tensors, partial, metadata={"format": "pt"})
        else:
            torch.save(dict(content), partial)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when all of it is on the disk.

    Raises:
        InputError: as `write`.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch's writer tells a full disk by the latter
        raise InputError(
            f"{path} cannot be written ({getattr(error, 'strerror', None) or str(error).splitlines()[0]}): what stands "
            "there is whole; make room or take another folder, and the same command goes on"
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint or a file of safetensors onto the CPU, as tensors and plain values only.

    Raises:
        InputError: the file is missing, damaged, or holds more than tensors and plain values; the sentence names what.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path} is a folder, a pipe or a device, not a checkpoint; a run's are last.pt and best.pt")
    try:
        if _is_safetensors(path):
            return _safetensors(path).load_file(path)
        _see_whole(path)
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
    _see_claims(content, path)
    return content


def _see_claims(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """See that no tensor stands for more than the whole file holds, as one can that repeats a value without end or has
    none at all: a network of its shape would fill the memory.

    Raises:
        InputError: one does.
    """
    size, waiting, seen = os.path.getsize(path), [("", content)], set()
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}".lstrip("."), inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{name}.{place}", inner) for place, inner in enumerate(value)]
        elif isinstance(value, torch.Tensor) and value.numel() * value.element_size() > size:
            raise InputError(
                f"{path} is damaged or no checkpoint of tensors ({name} claims {value.numel():,} values, more than the "
                f"{size:,} bytes of the file hold)"
            )


def _see_whole(path: str | os.PathLike) -> None:
    """See that no byte of what torch has written has changed: its files are zip archives, whose checksums its reader
    passes over. Files of torch before 1.6 have none.

    Raises:
        zipfile.BadZipFile: one has.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise zipfile.BadZipFile("a part of it is compressed, which torch never does")
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of its part {broken.partition('/')[2]} is not that of its bytes")


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
        InputError: tensors are missing, left over, of another shape or quantized; the sentence names the first.
    """
    own = net.state_dict()
    for key in own:
        if key not in state:
            raise InputError(f"{path} does not fit {name}: it has no tensor {key}")
        if not isinstance(state[key], torch.Tensor):
            raise InputError(f"{path} does not fit {name}: {key} is a {type(state[key]).__name__}, not a tensor")
        if state[key].shape != own[key].shape:
            raise InputError(
                f"{path} does not fit {name}: {key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
            )
        if own[key].is_floating_point() and not state[key].is_floating_point():
            raise InputError(f"{path} does not fit {name}: {key} holds {state[key].dtype}, not floating-point numbers")
    extra = next((key for key in state if key not in own), None)
    if extra is not None:
        raise InputError(f"{path} does not fit {name}: it has a tensor {extra} that the network has not")
    net.load_state_dict(state)
