"""Person re-identification sets in the layout Market-1501 and DukeMTMC-reID were published in.

    bounding_box_train/, query/, bounding_box_test/ with images named <identity>_c<camera>..., e.g.
    0002_c1s1_000451_03.jpg (Market-1501), 0005_c2_f0046985.jpg (DukeMTMC-reID), -1_c... (junk), 0000_c... (distractor)

DukeMTMC was withdrawn by its authors in 2019, since the people in it had not consented to be filmed. It stands here
only because Table 3 reports on it; nothing here downloads it, and whoever has a copy should weigh whether to use it.
"""

import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dhm.config import Config
from dhm.data import pedestrians
from dhm.data.folders import extensions, images_in, open_image
from dhm.data.images import MEAN, STD, Images
from dhm.data.pedestrians import FOLDERS
from dhm.data.selection import evenly_spaced, first_of_each_class
from dhm.data.sets import TrainAndTest
from dhm.errors import InputError
from dhm.memory import see_room
from dhm.metrics.retrieval import JUNK, Sightings, SingleQuery, lacking_match

_NAME = re.compile(r"(-1|\d{1,18})_c(\d{1,18})(s\d|_f\d)")
ENLARGED = 1.125
"""Size before a training image's crop, in units of the crop: 288 x 144 for 256 x 128. The paper says "slightly
larger"; this is the field's habit."""


@dataclass(frozen=True)
class Published:
    """A set as it was published: its folder's name, images by split (the gallery's without junk), and identities."""

    title: str
    folder: str
    images: dict[str, int]
    train_identities: int
    test_identities: int
    notice: str = ""


PUBLISHED = {
    "market1501": Published(
        "Market-1501", "Market-1501-v15.09.15", {"train": 12936, "query": 3368, "gallery": 15913}, 751, 750
    ),
    "dukemtmc-reid": Published(
        "DukeMTMC-reID", "DukeMTMC-reID", {"train": 16522, "query": 2228, "gallery": 17661}, 702, 702,
        "DukeMTMC was withdrawn by its authors in 2019, since the people in it had not consented; it is never "
        "downloaded here",
    ),
}  # fmt: skip
DATASETS = (*PUBLISHED, "pedestrians")
"""Re-identification sets by name; a folder in their layout is one too."""


@dataclass(frozen=True)
class Split:
    """Images of a split: files, or what the generator draws; who is on each, (N,); on which camera, (N,)."""

    items: Sequence[Any]
    identities: torch.Tensor
    cameras: torch.Tensor

    def without_junk(self) -> "Split":
        """The split as the protocol counts it."""
        kept = (self.identities != JUNK).nonzero().flatten()
        return Split([self.items[i] for i in kept], self.identities[kept], self.cameras[kept])

    def sightings(self) -> Sightings:
        """Who was seen where."""
        return Sightings(self.identities, self.cameras)


def is_reid(dataset: str, data_dir: Path) -> bool:
    """Whether a name or folder is one of these sets; a folder is by any of the layout's folders."""
    if dataset in DATASETS:
        return True
    return any((folder / name).is_dir() for folder in _places(dataset, data_dir) for name in FOLDERS.values())


def _places(dataset: str, data_dir: Path) -> list[Path]:
    """Where a set may lie: a path, or a folder of the data directory by its name or the published one."""
    folder = [data_dir / PUBLISHED[dataset].folder] if dataset in PUBLISHED else [Path(dataset).expanduser()]
    return [*folder, data_dir / dataset]


def find(dataset: str, data_dir: Path) -> Path:
    """The folder of a set.

    Raises:
        InputError: the set is not there.
    """
    place = next((place for place in _places(dataset, data_dir) if place.is_dir()), None)
    if place is None:
        published = PUBLISHED[dataset]  # any other name was recognised by its folder
        notice = f" ({published.notice})" if published.notice else ""
        raise InputError(f"{published.title} is not in {data_dir}: put its folder {published.folder} there{notice}")
    return place


def parse(file: str) -> tuple[int, int]:
    """Identity and camera from a file's name.

    Raises:
        InputError: a name of another form.
    """
    found = _NAME.match(os.path.basename(file))
    if found is None:
        raise InputError(
            f"{file}: identity and camera cannot be read from this name; 0002_c1s1_000451_03.jpg or "
            "0005_c2_f0046985.jpg would be right"
        )
    return int(found[1]), int(found[2])


def read_layout(folder: Path) -> dict[str, Split]:
    """The splits "train", "query" and "gallery" of a folder, junk left out, files in sorted order.

    Raises:
        InputError: a folder is missing or empty, a name does not parse, or a query has no match.
    """
    splits = {}
    for split, name in FOLDERS.items():
        if not (folder / name).is_dir():
            raise InputError(
                f"{folder} is not in the layout of Market-1501 ({', '.join(FOLDERS.values())}): it has no folder {name}"
            )
        (files,) = images_in([folder / name], deep=False)
        if not files:
            raise InputError(f"{folder / name} holds no image that Pillow reads ({', '.join(sorted(extensions()))})")
        splits[split] = _split(files, [parse(file) for file in files])
    return _checked(splits)


def _split(items: Sequence[Any], sightings: Sequence[tuple[int, int]]) -> Split:
    table = torch.tensor(sightings, dtype=torch.int64)
    return Split(items, table[:, 0], table[:, 1]).without_junk()


def _checked(splits: dict[str, Split]) -> dict[str, Split]:
    nobody = (splits["train"].identities == 0).nonzero().flatten().tolist()
    if nobody:
        raise InputError(f"{splits['train'].items[nobody[0]]}: identity 0, a distractor, cannot be trained on")
    lost = lacking_match(splits["query"].sightings(), splits["gallery"].sightings())
    if lost is not None:
        raise InputError(
            f"{splits['query'].items[lost]}: this query has no match, since no image in {FOLDERS['gallery']} shows its "
            "identity on another camera"
        )
    return splits


def differences(name: str, splits: dict[str, Split]) -> list[str]:
    """Where a copy of a published set departs from it, a phrase each; none for a whole copy."""
    published = PUBLISHED[name]
    pairs = [(f"{split} images", len(splits[split].items), count) for split, count in published.images.items()]
    pairs += [
        (f"identities in {FOLDERS[split]}", len(splits[split].identities.unique()), count)
        for split, count in (("train", published.train_identities), ("query", published.test_identities))
    ]
    return [f"{count:,} {what} instead of {wanted:,}" for what, count, wanted in pairs if count != wanted]


def load(config: Config, data_dir: Path) -> TrainAndTest:
    """A re-identification set: training identities are the classes; the test images are queries, then the gallery.

    `config.image_size` is the height of the images, 256 by default (64 for the drawn ones); the width is half of it.
    Whole images are stretched to the size, as published crops have none in common; training images are made
    `ENLARGED` times as large and cut at random. `classes` and `train_per_class` choose among the training images.

    Raises:
        InputError: what `read_layout` raises, a set that is not there, or a setting that has no meaning for it.
    """
    drawn = config.dataset == "pedestrians"
    height = config.image_size or (64 if drawn else 256)
    _refuse(config, height)
    splits, open_one = (_drawn(), _draw) if drawn else (read_layout(find(config.dataset, data_dir)), _open)
    if config.dataset in PUBLISHED:
        _tell(config.dataset, splits)
    train, query, gallery = splits["train"], splits["query"], splits["gallery"]
    names, labels = train.identities.unique(return_inverse=True)
    kept = evenly_spaced(len(names), config.classes)
    chosen, _ = first_of_each_class(labels, kept, config.train_per_class)
    new_label = torch.full((len(names),), -1).scatter(0, kept, torch.arange(len(kept)))
    size = height, height // 2
    crop = size if config.augment == "crop" else None
    enlarged = tuple(round(side * ENLARGED) for side in size) if crop else size
    images = len(chosen) * math.prod(enlarged) + len([*query.items, *gallery.items]) * math.prod(size)
    see_room(3 * images, "the images at this image_size")
    pixels = _pixels([train.items[i] for i in chosen], enlarged, open_one)
    test_pixels = _pixels([*query.items, *gallery.items], size, open_one)
    task = SingleQuery(query.sightings(), gallery.sightings())
    return TrainAndTest(
        config.dataset_name,
        Images(pixels, new_label[labels[chosen]], MEAN, STD, crop),
        Images(test_pixels, torch.cat([query.identities, gallery.identities]), MEAN, STD, task=task),
        tuple(f"{int(names[i]):04d}" for i in kept),
    )


def _refuse(config: Config, height: int) -> None:
    """Refuse settings that have no meaning here."""
    for name, right in (("test_on", ("val",)), ("augment", ("crop", "none")), ("label_noise", (0,))):
        if getattr(config, name) not in right:
            allowed = " or ".join(map(repr, right))
            raise InputError(
                f"{config.dataset} is a re-identification set: {name} must be {allowed}, not {getattr(config, name)!r}"
            )
    if height % 2:
        raise InputError(f"image_size, the height of a person's image, must be even, not {height}")


def _tell(name: str, splits: dict[str, Split]) -> None:
    """Warn of what is to be known of a published set."""
    if PUBLISHED[name].notice:
        warnings.warn(PUBLISHED[name].notice, stacklevel=3)
    odd = differences(name, splits)
    if odd:
        warnings.warn(f"this copy of {PUBLISHED[name].title} is not the published one: {'; '.join(odd)}", stacklevel=3)


def _drawn() -> dict[str, Split]:
    return _checked({
        split: _split(shots, [(shot.identity, shot.camera) for shot in shots])
        for split, shots in pedestrians.shots().items()
    })  # fmt: skip


@lru_cache(maxsize=2048)  # the runs of a grid see the same thousand
def _draw(shot: pedestrians.Shot, size: tuple[int, int]) -> Image.Image:
    return pedestrians.draw(shot, size=size)


def _open(file: str, size: tuple[int, int]) -> Image.Image:
    return open_image(file).resize(size[::-1], Image.Resampling.BILINEAR)


def _pixels(items: Sequence[Any], size: tuple[int, ...], open_one: Callable[..., Image.Image]) -> torch.Tensor:
    """Every item at `size` (height, width), (N, 3, height, width) bytes."""
    out = torch.empty(len(items), 3, *size, dtype=torch.uint8)

    def place(i: int) -> None:
        out[i] = torch.from_numpy(np.array(open_one(items[i], size))).permute(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(place, range(len(items))))
    return out
