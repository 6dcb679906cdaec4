"""Folders in the ImageNet layout: train/<class>/<image>, and val/<class>/<image> or val/<image> with a list.

Images may lie deeper inside their class, as in Tiny ImageNet, whose flat validation images lie in val/images. Whatever
begins with a dot is left out.
"""

import csv
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from dhm.errors import InputError

EXTENSIONS = {".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
LISTS = ("val.txt", "val_labels.txt", "val_annotations.txt", "synset_labels.txt",
         "imagenet_2012_validation_synset_labels.txt", "LOC_val_solution.csv")  # fmt: skip
"""Names a list of a flat validation folder may have, in val/ or beside it; see `flat_labels`."""

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
        raise InputError(f"{folder}: class {odd} is in {where}/ but not in {missing}/")
    return classes, {"train": in_classes(folder / "train", classes), "val": val}


def list_validation(folder: Path, classes: Sequence[str] = ()) -> tuple[list[str], Listed]:
    """Class names and (file, label) of val/ alone, in folders by class or flat with its list.

    Args:
        classes: names to which the numbers of a list refer; by default those the list itself gives.
    """
    flat = _flat_validation(folder / "val")
    if not flat:
        names = class_folders(folder, "val")
        return names, in_classes(folder / "val", names)
    listed = flat_labels(folder, [os.path.basename(path) for path in flat], classes)
    names = sorted(set(listed))
    label = {name: i for i, name in enumerate(names)}
    return names, [(path, label[name]) for path, name in zip(flat, listed, strict=True)]


def _flat_validation(folder: Path) -> list[str]:
    """Images of a validation folder without classes, in itself or all in its folder images/."""
    if not folder.is_dir():
        return []
    return _images_in(folder / "images" if _folders_in(folder) == ["images"] else folder, deep=False)


def class_folders(folder: Path, split: str) -> list[str]:
    """Names of the class folders of a split, sorted."""
    if not (folder / split).is_dir():
        raise InputError(f"{folder} is not in the ImageNet layout: it has no folder {split}/<class>/<image>")
    names = _folders_in(folder / split)
    if not names:
        raise InputError(f"{folder / split} holds no class folders")
    return names


def in_classes(folder: Path, classes: Sequence[str]) -> Listed:
    """(file, label) of every image in the class folders of a split, in sorted order.

    Raises:
        InputError: a class without an image.
    """
    listed: Listed = []
    for label, name in enumerate(classes):
        inside = _images_in(folder / name, deep=True)
        if not inside:
            raise InputError(f"{folder / name} holds no image ({', '.join(sorted(EXTENSIONS))})")
        listed += [(path, label) for path in inside]
    return listed


def _folders_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _images_in(folder: str | Path, deep: bool) -> list[str]:
    """Paths of the images of a folder, sorted; `deep` takes those of its folders too."""
    found: list[str] = []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
            found.append(entry.path)
        elif deep and entry.is_dir():
            found += _images_in(entry.path, deep)
    return sorted(found)


def flat_labels(folder: Path, names: Sequence[str], classes: Sequence[str] = ()) -> list[str]:
    """The class of every image of a flat val/, from the list in val/ or in `folder` (for its names see `LISTS`).

    Accepted, one image a line:

    - `ILSVRC2012_val_00000001.JPEG n01751748`, the class by its folder's name (WordNet id);
    - `ILSVRC2012_val_00000001.JPEG 65`, by its place in the sorted names, counted from 0;
    - `n01751748`, as many lines as images, in the order of the sorted file names;
    - Kaggle's `LOC_val_solution.csv`: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`.

    The development kit's `ILSVRC2012_validation_ground_truth.txt` numbers the classes in an order of its own (in
    meta.mat), so it is refused.

    Raises:
        InputError: there is no list, it does not fit the images, or its lines are of another form.
    """
    places = [place / name for place in (folder / "val", folder) for name in LISTS]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(f"{folder / 'val'} is flat, and its list of labels is missing: put {LISTS[0]} there")
    with open(file, newline="") as text:
        rows = [re.split(r"[\s,]+", ",".join(row).strip()) for row in csv.reader(text) if any(row)]
    if rows and rows[0][0] == "ImageId":
        rows = rows[1:]
    if all(len(row) == 1 for row in rows) and len(rows) == len(names):
        found = {name: row[0] for name, row in zip(names, rows, strict=True)}
        if all(value.isdigit() for value in found.values()):
            raise InputError(f"{file} holds bare numbers, whose order it does not give; name the classes instead")
    else:
        by_stem = {os.path.splitext(row[0])[0]: row[1] for row in rows if len(row) > 1}
        found = {name: by_stem[stem] for name in names if (stem := os.path.splitext(name)[0]) in by_stem}
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise InputError(f"{file} has no label for {missing}")
    return [_class_name(found[name], classes, file) for name in names]


def _class_name(given: str, classes: Sequence[str], file: Path) -> str:
    """The class a list means: its name, or the name at the place the list gives."""
    if not given.isdigit() or given in classes:
        return given
    if not classes:
        return given.zfill(4)  # without names the numbers themselves, so that they sort
    if int(given) >= len(classes):
        raise InputError(f"{file} has the label {given}, but there are {len(classes)} classes, counted from 0")
    return classes[int(given)]


def open_image(path: str) -> Image.Image:
    """Read an image file to its end, as RGB of 8 bits.

    Raises:
        InputError: the file is truncated, no image, or has pixels of 32 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):  # PIL would cut its values off at 255
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in ("I", "F"):
                raise ValueError("its pixels have 32 bits; save it with 8 or 16 bits a channel")
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is no readable image: {error}") from None


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

    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(read, files))
    odd = next((path for path, array in zip(files, arrays, strict=True) if array.shape != arrays[0].shape), None)
    if odd is not None:
        raise InputError(f"{odd} differs in size from {files[0]}: choose an image_size")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
