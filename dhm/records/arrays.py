"""Arrays in a file (npz), written as bytes and read without running code or taking more memory than they need."""

import io
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

MOST = 2**30
"""Bytes of all arrays of a file; predictions of ImageNet's 50,000 images are a two-hundredth of it."""


def dumped(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as the content of an npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def loaded(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name.

    Raises:
        ValueError: it is damaged, holds objects, or claims more than it holds or than `MOST`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(part.file_size for part in archive.infolist())
            if size > MOST:
                raise ValueError(f"its arrays take {size:,} bytes, more than the {MOST:,} that are read")
            return {part.filename.removesuffix(".npy"): _array(*_member(archive, part)) for part in archive.infolist()}
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _member(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> tuple[bytes, str]:
    """What a member of the archive holds, to the size it claims and no further."""
    if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are unpacked whole
        raise ValueError(f"its array {part.filename} is compressed as numpy never does")
    with archive.open(part) as file:
        return file.read(part.file_size), part.filename


def _array(content: bytes, name: str) -> np.ndarray:
    """An array from what a member of the archive holds, all of which is in memory already."""
    file = io.BytesIO(content)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"its array {name} is of an unknown version of the format")
    shape, fortran, kind = read[version](file)
    if kind.hasobject:
        raise ValueError(f"its array {name} holds objects, which may run code")
    count = int(np.prod([int(length) for length in shape], dtype=object)) if shape else 1
    if min(shape, default=0) < 0:
        raise ValueError(f"its array {name} claims {min(shape)} values in a row")
    if count * kind.itemsize != len(content) - file.tell():
        raise ValueError(f"its array {name} claims {count:,} values and holds another number")
    return np.frombuffer(content, kind, count, file.tell()).reshape(shape, order="F" if fortran else "C").copy()
