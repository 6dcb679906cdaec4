"""Where images come from: embedded, CIFAR-100, or a folder of the user's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from dhm import paths
from dhm.config import Config
from dhm.data import cifar100, reid
from dhm.data.corruption import redraw
from dhm.data.folders import ORIGIN, Listed, class_folders, decode, list_images, list_validation
from dhm.data.images import Images, channel_statistics
from dhm.data.selection import evenly_spaced, first_of_each_class
from dhm.data.sets import ImageSet, TrainAndTest
from dhm.data.streaming import Streamed
from dhm.errors import InputError
from dhm.memory import see_room

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A data set before anything is chosen from it.

    Attributes:
        classes: names, by label.
        labels: of the splits "train" and "val", (N,) int64 each.
        read: (split, indices, image_size) -> pixels (n, 3, H, W) uint8, for a resident set.
        items: (split, indices) -> files or images (3, H, W) uint8 of their own size, for a streamed set.
        origin: in which of the forms it can have the set was found.
    """

    classes: Sequence[str]
    labels: dict[str, torch.Tensor]
    read: Callable[[str, torch.Tensor, int | None], torch.Tensor]
    items: Callable[[str, torch.Tensor], list[str] | list[torch.Tensor]]
    origin: str


Parts = Sequence[tuple[str, torch.Tensor]]
"""(split, indices) pairs that are put one after the other."""


def load(
    config: Config, data_dir: str | Path | None = None, download: bool = False, workers: int | None = None
) -> TrainAndTest:
    """The images a configuration asks for, on the CPU: resident, or streamed if its augmentation is by image.

    Args:
        data_dir: folder that holds data sets, see `dhm.paths.data_dir`.
        download: fetch CIFAR-100 if it is not there; nothing is ever downloaded without it.
        workers: processes that read streamed images; by default one a core, at most 8.

    Raises:
        InputError: a data set that is not there or is incomplete, or a selection it cannot give.
    """
    folder = paths.data_dir(data_dir)
    if reid.is_reid(config.dataset, folder):
        return reid.load(config, folder)
    source = DATASETS[config.dataset](folder, download) if config.dataset in DATASETS else _folder(config, folder)
    kept = evenly_spaced(len(source.classes), config.classes)
    chosen, rest = first_of_each_class(source.labels["train"], kept, config.train_per_class)
    tested = torch.isin(source.labels["val"], kept).nonzero().flatten()
    labels = _labels(source, kept, [("train", chosen)])
    classes = tuple(source.classes[i] for i in kept)
    seen = redraw(labels, config.label_noise, len(classes), config.seed, config.label_noise_excludes_truth)
    test_parts = [("val", tested)] + ([("train", rest)] if config.test_on == "val+rest" else [])
    test_labels = _labels(source, kept, test_parts)
    train: ImageSet
    test: ImageSet
    if config.streamed:
        train = _stream(source, config, [("train", chosen)], seen, workers)
        test = _stream(source, config, test_parts, test_labels, workers)
    else:
        if config.image_size is not None:
            see_room((len(seen) + len(test_labels)) * 3 * config.image_size**2, "the images at this image_size")
        pixels, test_pixels = (
            torch.cat([source.read(split, indices, config.image_size) for split, indices in parts])
            for parts in ([("train", chosen)], test_parts)
        )
        statistics = channel_statistics(pixels)
        train, test = Images(pixels, seen, *statistics), Images(test_pixels, test_labels, *statistics)
    return TrainAndTest(
        config.dataset_name, train, test, classes, float((seen != labels).float().mean()), source.origin
    )


def load_test(
    config: Config, data_dir: str | Path | None = None, download: bool = False, workers: int | None = None,
    numbered: bool | None = None,
) -> tuple[ImageSet, tuple[str, ...]]:  # fmt: skip
    """The test images of a configuration and the names of their classes; a streamed folder may lack train/.

    Args:
        numbered: what class names that are numbers mean in a folder without train/, see `folders.list_validation`.
    """
    if config.dataset_name in DATASETS or not config.streamed or config.test_on != "val":
        data = load(config, data_dir, download, workers)
        return data.test, data.classes
    folder = _find(config, paths.data_dir(data_dir))
    names = class_folders(folder, "train") if (folder / "train").is_dir() else ()
    classes, listed = list_validation(folder, names, numbered)
    source = _files(classes, {"val": listed})
    kept = evenly_spaced(len(classes), config.classes)
    parts = [("val", torch.isin(source.labels["val"], kept).nonzero().flatten())]
    images = _stream(source, config, parts, _labels(source, kept, parts), workers)
    return images, tuple(classes[i] for i in kept)


def _stream(source: Source, config: Config, parts: Parts, labels: torch.Tensor, workers: int | None) -> Streamed:
    assert config.image_size is not None  # a streamed configuration has one
    if workers is not None and workers < 0:
        raise InputError(f"workers must be 0 or more, not {workers}")
    items = [item for split, indices in parts for item in source.items(split, indices)]
    in_memory = isinstance(items[0], torch.Tensor)  # where processes would cost more than they give
    images = Streamed(items, labels, config.image_size, 0 if in_memory else workers)
    images.check()
    return images


def _labels(source: Source, kept: torch.Tensor, parts: Parts) -> torch.Tensor:
    """Labels of the parts, counted within the classes kept."""
    new_label = torch.full((len(source.classes),), -1).scatter(0, kept, torch.arange(len(kept)))
    return torch.cat([new_label[source.labels[split][indices]] for split, indices in parts])


def _arrays(classes: Sequence[str], origin: str, **splits: tuple[torch.Tensor, torch.Tensor]) -> Source:
    def read(split: str, indices: torch.Tensor, image_size: int | None) -> torch.Tensor:
        pixels = splits[split][0][indices]
        if image_size is None or image_size == pixels.shape[-1]:
            return pixels
        return F.interpolate(pixels.float(), size=image_size, mode="area").round().byte()

    def items(split: str, indices: torch.Tensor) -> list[torch.Tensor]:
        return list(splits[split][0][indices])

    return Source(classes, {name: labels for name, (_, labels) in splits.items()}, read, items, origin)


def _fashion_mnist_mini(folder: Path, download: bool) -> Source:
    with np.load(paths.embedded("fashion-mnist-mini.npz")) as arrays:
        images = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    splits = {
        split: (images[f"{split}_images"][:, None].expand(-1, 3, -1, -1), images[f"{split}_labels"].long())
        for split in ("train", "val")
    }
    return _arrays(FASHION_CLASSES, "embedded", **splits)


def _cifar100(folder: Path, download: bool) -> Source:
    splits, origin = cifar100.read(folder, download)
    return _arrays(cifar100.CLASSES, origin, **splits)


DATASETS: dict[str, Callable[[Path, bool], Source]] = {
    "fashion-mnist-mini": _fashion_mnist_mini,
    cifar100.NAME: _cifar100,
}
"""Data sets by name; any other name is a folder in the ImageNet layout."""


def _folder(config: Config, data_dir: Path) -> Source:
    folder = _find(config, data_dir)
    if folder.name == cifar100.NAME:  # by its path it is the same set, so it is held to the same
        return _arrays(cifar100.CLASSES, ORIGIN, **cifar100.from_folders(folder))
    return _files(*list_images(folder))


def _find(config: Config, data_dir: Path) -> Path:
    path = Path(config.dataset).expanduser()
    folder = path if path.is_dir() else data_dir / path
    if not folder.is_dir():
        raise InputError(
            f"there is no data set {config.dataset!r}: it is none of {', '.join((*DATASETS, *reid.DATASETS))}, nor a "
            f"folder here or in {data_dir}"
        )
    return folder


def _files(classes: Sequence[str], files: dict[str, Listed]) -> Source:
    labels = {split: torch.tensor([label for _, label in listed]) for split, listed in files.items()}

    def items(split: str, indices: torch.Tensor) -> list[str]:
        return [files[split][i][0] for i in indices]

    def read(split: str, indices: torch.Tensor, image_size: int | None) -> torch.Tensor:
        return decode(items(split, indices), image_size)

    return Source(classes, labels, read, items, ORIGIN)
