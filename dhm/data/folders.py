"""Folders in the ImageNet layout: train/<class>/<image>, and val/<class>/<image> or val/<image> with a list.

Images may lie deeper inside their class, as in Tiny ImageNet, whose flat validation images lie in val/images. Whatever
begins with a dot is left out, and what systems leave behind; of other files those whose extension is none of Pillow's
are counted in a warning.
"""

import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from dhm.data.depth import to_rgb
from dhm.data.labels import flat_labels
from dhm.errors import InputError

_NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats Pillow only recognises, draws by another program, or that hold measurements."""
_NOTES = {".csv", ".db", ".html", ".ini", ".json", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
"""Extensions of what commonly lies beside images and is none, so that leaving it out is not worth a word."""
_SYSTEM = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
"""Folders that systems leave behind, some of them with pictures in them."""

_DEEPEST = 10
"""Folders inside a class that lie in each other; with links to one another, two in each, they make a thousand."""

ORIGIN = "class folders"
Listed = list[tuple[str, int]]


def list_images(folder: Path) -> tuple[list[str], dict[str, Listed]]:
    """Class names in sorted order and, for "train" and "val", every (file, label) in sorted order.

    Raises:
        InputError: a split or a class is missing or empty, or the two splits differ in their classes.
    """
    classes = class_folders(folder, "train")
    in_val, val = list_validation(folder, classes)
    if classes != in_val:
        odd = sorted(set(classes) ^ set(in_val))[0]
        where, missing = ("train", "val") if odd in classes else ("val", "train")
        alike = [name for name in {*classes, *in_val} - {odd} if _as_read(name) == _as_read(odd)]
        told = f", where {alike[0]!a} is another name than {odd!a}" if alike else ""
        raise InputError(f"{folder}: class {odd} is in {where}/ but not in {missing}/{told}")
    return classes, {"train": in_classes(folder / "train", classes), "val": val}


def list_validation(
    folder: Path, classes: Sequence[str] = (), numbered: bool | None = None
) -> tuple[list[str], Listed]:
    """Class names and (file, label) of val/ alone, in folders by class or flat with its list.

    Args:
        classes: names of the classes in their order, to which the numbers of a list refer; by default those val/ gives.
        numbered: without `classes`, whether names that are numbers stand in the order of numbers (a network counts its
            classes so) or of words (as train/ would have, see `list_images`). It matters from 11 classes on.

    Raises:
        InputError: as `list_images`; or names are numbers, and which class is which cannot be told.
    """
    flat = _flat_validation(folder / "val")
    if flat:
        listed = flat_labels(folder, [os.path.basename(path) for path in flat], classes)
        # without names a list's numbers are places
        names = _ordered(set(listed), folder, not classes)
        label = {name: i for i, name in enumerate(names)}
        return names, [(path, label[name]) for path, name in zip(flat, listed, strict=True)]
    found = class_folders(folder, "val")
    names = found if classes else _ordered(found, folder, numbered)
    return names, in_classes(folder / "val", names)


def _as_read(name: str) -> str:
    """A name without what readers overlook: capitals, and the ways Unicode has to write a letter with its accent."""
    return unicodedata.normalize("NFKC", name).casefold()


def _ordered(names: Collection[str], folder: Path, numbered: bool | None) -> list[str]:
    """Names of classes in the order of words, or of numbers if they are the numbers from 0 on."""
    words = sorted(names)
    if numbered is False or not all(name.isdecimal() for name in names):
        return words
    numbers = sorted(words, key=int)
    if [int(name) for name in numbers] != list(range(len(names))):
        raise InputError(
            f"{folder / 'val'} numbers its {len(names)} classes {numbers[0]} to {numbers[-1]}, so which class of a "
            f"network each is cannot be told; number them 0 to {len(names) - 1}, or put train/ beside it"
        )
    if numbered is None and numbers != words:
        raise InputError(
            f"{folder / 'val'} numbers its classes and has no train/ beside it: say by numbered=True that they are a "
            "network's classes by number, or by numbered=False that they are in the order of words, as train/ would be"
        )
    return numbers


def _flat_validation(folder: Path) -> list[str]:
    """Images of a validation folder without classes, in itself or all in its folder images/."""
    if not folder.is_dir():
        return []
    inside = folder / "images" if _folders_in(folder) == ["images"] else folder
    return images_in([inside], deep=False)[0]


def class_folders(folder: Path, split: str) -> list[str]:
    """Names of the class folders of a split, sorted."""
    if not (folder / split).is_dir():
        raise InputError(f"{folder} is not in the ImageNet layout: it has no folder {split}/<class>/<image>")
    names = _folders_in(folder / split)
    if not names:
        raise InputError(f"{folder / split} holds no class folders")
    loose = images_in([folder / split], deep=False)[0]
    if loose:
        warnings.warn(f"{folder / split}: left out {len(loose):,} images outside the class folders", stacklevel=2)
    return names


def in_classes(folder: Path, classes: Sequence[str]) -> Listed:
    """(file, label) of every image in the class folders of a split, in sorted order.

    Raises:
        InputError: a class without an image.
    """
    inside = images_in([folder / name for name in classes])
    empty = next((name for name, files in zip(classes, inside, strict=True) if not files), None)
    if empty is not None:
        raise InputError(f"{folder / empty} holds no image that Pillow reads ({', '.join(sorted(extensions()))})")
    return [(path, label) for label, files in enumerate(inside) for path in files]


def images_in(folders: Sequence[Path], deep: bool = True) -> list[list[str]]:
    """Paths of the images of each folder, sorted; `deep` takes those of its folders too.

    Other files are counted in one warning, but for notes and tables.

    Raises:
        InputError: a folder links to one it lies in; or what is called an image is no file, or cannot be asked.
    """
    left: Counter[str] = Counter()
    found = [_walk(str(folder), deep, left, ()) for folder in folders]
    if left:
        where = folders[0] if len(folders) == 1 else folders[0].parent
        kinds = ", ".join(f"{count:,} {kind or 'without extension'}" for kind, count in sorted(left.items()))
        warnings.warn(
            f"{where}: left out {left.total():,} files that are no images by their names ({kinds})", stacklevel=2
        )
    return found


def _walk(folder: str, deep: bool, left: Counter[str], above: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for entry, is_folder in _entries(folder):
        kind = os.path.splitext(entry.name)[1].lower()
        if is_folder:
            found += _walk(entry.path, deep, left, _below(folder, above)) if deep else []
        elif kind in extensions():
            if not entry.is_file():  # a pipe, say, which would be waited for without end
                raise InputError(f"{entry.path} is no file, nor a link to one")
            found.append(entry.path)
        elif kind not in _NOTES:
            left[kind] += 1
    return sorted(found)


def _below(folder: str, above: tuple[str, ...]) -> tuple[str, ...]:
    """The folders above those in this one, itself included, without links.

    Raises:
        InputError: it is one of those it lies in, or lies in too many.
    """
    place = os.path.realpath(folder)
    if place in above:
        raise InputError(f"{folder} is a link to a folder it lies in, so its images have no end")
    if len(above) == _DEEPEST:
        raise InputError(f"{folder} lies {_DEEPEST} folders deep in its class, more than are looked into")
    return *above, place


def _entries(folder: str | Path) -> list[tuple[os.DirEntry[str], bool]]:
    """What lies in a folder, and whether it is a folder itself."""
    try:
        with os.scandir(folder) as entries:
            return [(entry, entry.is_dir()) for entry in entries if not _hidden(entry.name)]
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error}") from None


def _folders_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry, is_folder in _entries(folder) if is_folder)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM


@cache
def extensions() -> frozenset[str]:
    """Extensions, with their dot and in lower case, of the pictures this Pillow reads."""
    read = {*_formats(), "MPO"}
    return frozenset(extension for extension, form in Image.registered_extensions().items() if form in read)


@cache
def _formats() -> tuple[str, ...]:
    """Formats that are read, whatever a file's name says: Pillow itself would hand an EPS to another program."""
    Image.init()
    return tuple(sorted({*Image.OPEN} - _NO_PICTURES))


def open_image(path: str) -> Image.Image:
    """Read an image file to its end, as RGB of 8 bits.

    Alpha is dropped, the orientation that a camera notes is not followed (but in TIFF, by Pillow), of an animation the
    first picture counts: as in torchvision and timm. For other depths see `dhm.data.depth`.

    Raises:
        InputError: the file is truncated, no image, or of a depth that has no reading as 8 bits.
    """
    try:
        with Image.open(path, formats=_formats()) as image:
            return to_rgb(image)
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        raise InputError(f"{path} is no readable image: {error or type(error).__name__}") from None


def decode(
    files: Sequence[str], image_size: int | None = None, expected: tuple[int, int] | None = None
) -> torch.Tensor:
    """Read images into (N, 3, size, size) bytes: the centre square, box-filtered to `image_size`.

    Args:
        expected: width and height that all images must have.

    Raises:
        InputError: an image that cannot be read or is not of the size expected, or images of several sizes where no
            size is asked for.
    """

    def read(path: str) -> np.ndarray:
        rgb = open_image(path)
        if expected is not None and rgb.size != expected:
            raise InputError("{} is {}x{}, where {}x{} is expected".format(path, *rgb.size, *expected))
        if image_size is not None and rgb.size != (image_size, image_size):
            rgb = ImageOps.fit(rgb, (image_size, image_size), method=Image.Resampling.BOX)
        return np.asarray(rgb)

    tiny = expected is not None and max(expected) < 64  # then threads wait for each other longer than they read
    with ThreadPoolExecutor(1 if tiny else None) as pool:
        arrays = list(pool.map(read, files))
    odd = next((path for path, array in zip(files, arrays, strict=True) if array.shape != arrays[0].shape), None)
    if odd is not None:
        raise InputError(f"{odd} differs in size from {files[0]}: choose an image_size")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
