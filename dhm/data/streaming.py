"""Sets of images that do not fit into memory: read, cut and mirrored one by one in worker processes."""

import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from dhm.data.folders import open_image
from dhm.data.images import MEAN, STD, Batch, normalise, upload
from dhm.errors import InputError
from dhm.randomness import generator, seed_of

_STREAM = 0x5CA1E  # keeps the draws of single images apart from those of whole batches under the same seed
_ENLARGED = 256 / 224  # an image's shorter side before its centre is cut out, in units of the cut's side


def transform(kind: str, size: int) -> v2.Transform:
    """From a PIL image to (3, size, size) bytes.

    Args:
        kind: "scale" cuts out 8 to 100 % of the area at an aspect ratio of 3/4 to 4/3, resizes it and mirrors every
            second image; "fixed_scale" resizes the shorter side to 256/224 of `size`, cuts out a square at random and
            mirrors; "none" resizes likewise and cuts out the centre.
    """
    shorter = v2.Resize(round(size * _ENLARGED))
    steps = {
        "scale": [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()],
        "fixed_scale": [shorter, v2.RandomCrop(size), v2.RandomHorizontalFlip()],
        "none": [shorter, v2.CenterCrop(size)],
    }
    return v2.Compose([*steps[kind], v2.PILToTensor()])


@dataclass(frozen=True)
class _Cut(Dataset):
    """The images of one pass, for the worker processes: what augmentation draws is a function of `position` and the
    image's index alone. An image that cannot be read comes as the sentence that says so, one that is gone as an
    error."""

    items: Sequence[str | torch.Tensor]
    change: v2.Transform
    position: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> torch.Tensor | str | FileNotFoundError:
        item = self.items[index]
        try:
            image = open_image(item) if isinstance(item, str) else VF.to_pil_image(item)
        except InputError as error:
            return str(error) if os.path.exists(str(item)) else FileNotFoundError(item)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(_STREAM, *self.position, index))
            return self.change(image)


def _own_cores() -> int:
    """Cores for every process of this host that trains, 8 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def _collate(
    images: list[torch.Tensor | str | FileNotFoundError],
) -> tuple[torch.Tensor | None, list[int], list[str], list[str]]:
    """The images that could be read as one block, their places in the batch, what is wrong with others, and the files
    of those that are gone."""
    read = [i for i, image in enumerate(images) if isinstance(image, torch.Tensor)]
    block = torch.stack([images[i] for i in read]) if read else None  # type: ignore[misc]
    gone = [str(image) for image in images if isinstance(image, FileNotFoundError)]
    return block, read, [image for image in images if isinstance(image, str)], gone


@dataclass(frozen=True)
class Streamed:
    """Labelled images that are read when they are needed; to a training loop the same as `Images`.

    A training image that cannot be read is left out of its batch and noted in `unreadable`, so that a run of days
    goes on and its record says what was missing. A test image that cannot be read stops the run, since an error over
    fewer images is another figure; nothing is lost by it: the run goes on from its checkpoint once the file is mended.

    Attributes:
        items: files, or images (3, H, W) uint8 of a set that is in memory anyway.
        labels: (N,) int64.
        image_size: side of the square every image is cut to.
        workers: processes that read, by default one for every core this process has, at most 8; results do not depend
            on their number.
        unreadable: sentences on the training images left out so far.
    """

    items: Sequence[str | torch.Tensor]
    labels: torch.Tensor
    image_size: int
    workers: int | None = None
    mean: torch.Tensor = field(default_factory=lambda: MEAN)
    std: torch.Tensor = field(default_factory=lambda: STD)
    unreadable: set[str] = field(default_factory=set)
    task: ClassVar[None] = None  # tested by classes, see `Images.task`

    def __len__(self) -> int:
        return len(self.items)

    def check(self) -> None:
        """See that images can be read at all, before a training that would leave out every one of them.

        Raises:
            InputError: of some twenty, spread over the set, none can.
        """
        sentences: list[str] = []
        for item in self.items[:: max(1, len(self) // 20)]:
            if not isinstance(item, str):
                return
            try:
                open_image(item)
                return
            except InputError as error:
                sentences.append(str(error))
        if sentences:
            raise InputError(f"of {len(sentences)} images tried, none can be read: {sentences[0]}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images as they are trained on."""
        return self.image_size, self.image_size

    def to(self, device: torch.device) -> "Streamed":
        """The same images, their batches on another device."""
        return replace(self, labels=self.labels.to(device), mean=self.mean.to(device), std=self.std.to(device))

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of labels and file names (not of their content, which would take a pass over the set)."""
        total = zlib.crc32(self.labels.cpu().numpy().tobytes())
        for item in self.items:
            name = os.fsencode("/".join(item.split(os.sep)[-2:])) if isinstance(item, str) else item.numpy().tobytes()
            total = zlib.crc32(name, total)
        return total

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-len(self) // batch_size)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, *, augment: str, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Shuffled batches of an epoch, from step `start` on; of each, `rank` gets every `world`-th image.

        The order is a function of (seed, epoch), an image's augmentation of (seed, epoch, image).
        """
        order = torch.randperm(len(self), generator=generator(seed, epoch))
        mine = [chosen[rank::world] for chosen in order.split(batch_size)[start:]]
        change = transform(augment, self.image_size)
        for pixels, labels, unreadable in self._read(mine, _Cut(self.items, change, (seed, epoch))):
            for sentence in sorted(set(unreadable) - self.unreadable):
                warnings.warn(f"left out of the training: {sentence}", stacklevel=2)
                self.unreadable.add(sentence)
            yield pixels, labels

    def test_batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Every image once, in order, its centre cut out; `rank` gets every `world`-th image, none twice.

        Raises:
            InputError: an image that cannot be read.
        """
        mine = torch.arange(rank, len(self), world).split(batch_size)
        for pixels, labels, unreadable in self._read(mine, _Cut(self.items, transform("none", self.image_size), ())):
            if unreadable:
                raise InputError(f"the test is stopped: {unreadable[0]}")
            yield pixels, labels

    def _read(
        self, batches: Sequence[torch.Tensor], cut: _Cut
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[str]]]:
        """Pixels and labels of each batch on the device, and sentences on the images that are missing from it.

        Raises:
            InputError: a file is gone, as when a disk is: that is no fault of one image, and no run goes on so.
        """
        device = self.labels.device
        workers = _own_cores() if self.workers is None else self.workers
        options: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
        loader = DataLoader(
            cut, batch_sampler=[chosen.tolist() for chosen in batches], num_workers=workers,  # type: ignore[arg-type]
            collate_fn=_collate, pin_memory=device.type == "cuda", generator=torch.Generator(), **options,
        )  # fmt: skip
        for chosen, (block, read, unreadable, gone) in zip(batches, loader, strict=True):
            if gone:
                raise InputError(
                    f"the image {gone[0]} is gone, which was there when the run was started; bring it back, and the "
                    "same command goes on from the last checkpoint"
                )
            if block is None:
                block = torch.empty(0, 3, self.image_size, self.image_size, dtype=torch.uint8)
            labels = self.labels[upload(chosen[read], device)]
            yield normalise(block.to(device, non_blocking=True), self.mean, self.std), labels, unreadable
