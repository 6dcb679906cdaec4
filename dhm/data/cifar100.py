"""CIFAR-100 from torchvision's files or from class folders: the same images in the same order from either.

    cifar-100-python/                       as torchvision unpacks it, or
    cifar100/train/<class>/<image>          500 images of 32x32 in each of the 100 classes
    cifar100/test/<class>/<image>           100 in each; val/ will do

Class folders have lost the order of the published file. Images are therefore put in an order of their own, by label and
then by a digest of their pixels, so that a run's batches, and its bits, do not depend on where its images came from.
"""

import hashlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from dhm.data.folders import ORIGIN, class_folders, decode, in_classes
from dhm.errors import InputError

NAME = "cifar100"
SIZE = 32
PER_CLASS = {"train": 500, "val": 100}
CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905 (two hundred quotation marks less)
)

Split = tuple[torch.Tensor, torch.Tensor]
"""Pixels (N, 3, 32, 32) uint8 and labels (N,) int64."""


def read(data_dir: Path, download: bool = False) -> tuple[dict[str, Split], str]:
    """Both splits, "train" and "val", from what lies in a data directory, and which of the two sources that was.

    Args:
        download: fetch torchvision's files if neither source is there.

    Raises:
        InputError: neither is there, or it is not CIFAR-100.
    """
    folder = data_dir / NAME
    if folder.is_dir() and not (data_dir / "cifar-100-python").is_dir():
        return from_folders(folder), ORIGIN
    return _from_torchvision(data_dir, download), "torchvision's files"


def from_folders(folder: Path) -> dict[str, Split]:
    """Both splits from class folders.

    Raises:
        InputError: the folder does not hold CIFAR-100's classes, counts and sizes.
    """
    test = "test" if (folder / "test").is_dir() else "val"
    return {split: _ordered(*_from_split(folder, name)) for split, name in (("train", "train"), ("val", test))}


def _from_split(folder: Path, split: str) -> Split:
    found, count = class_folders(folder, split), PER_CLASS["train" if split == "train" else "val"]
    strange, missing = sorted({*found} - {*CLASSES}), sorted({*CLASSES} - {*found})
    if strange:
        raise InputError(f"{folder / split} is not CIFAR-100's: it holds the class {strange[0]}, which CIFAR-100 lacks")
    if missing:
        raise InputError(f"{folder / split} is not all of CIFAR-100: the class folder {missing[0]} is missing")
    listed = in_classes(folder / split, CLASSES)
    counts = np.bincount([label for _, label in listed], minlength=len(CLASSES))
    odd = next((i for i, there in enumerate(counts) if there != count), None)
    if odd is not None:
        raise InputError(
            f"{folder / split / CLASSES[odd]} holds {counts[odd]} images, where CIFAR-100 has {count} in each class"
        )
    pixels = decode([file for file, _ in listed], expected=(SIZE, SIZE))
    return pixels, torch.tensor([label for _, label in listed])


def _ordered(pixels: torch.Tensor, labels: torch.Tensor) -> Split:
    """The images by label, and within it by a digest of their pixels."""
    keys = [hashlib.sha1(image.tobytes(), usedforsecurity=False).digest() for image in pixels.contiguous().numpy()]
    order = torch.tensor(sorted(range(len(keys)), key=lambda i: (int(labels[i]), keys[i])))
    return pixels[order].contiguous(), labels[order]


def _from_torchvision(data_dir: Path, download: bool) -> dict[str, Split]:
    from torchvision.datasets import CIFAR100

    try:
        with _download_alone(data_dir) if download else nullcontext():
            train, val = (CIFAR100(str(data_dir), train=part, download=download) for part in (True, False))
    except RuntimeError:
        raise InputError(
            f"CIFAR-100 is missing or incomplete in {data_dir}: put its folder cifar-100-python there, or {NAME} with "
            "train/<class>/ and test/<class>/, or ask for the download (--download, or download = True in a notebook)"
        ) from None
    except OSError as error:
        raise InputError(f"CIFAR-100 could not be downloaded to {data_dir}: {error}") from None
    return {
        split: _ordered(torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets))
        for split, part in (("train", train), ("val", val))
    }


def _download_alone(folder: Path) -> FileLock:
    """A lock against the other processes of a run or a grid, which would write the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".download.lock")
