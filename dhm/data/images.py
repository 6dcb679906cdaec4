"""Sets of images that fit into memory: resident on the device as bytes, augmented there a batch at a time."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from dhm.metrics.retrieval import SingleQuery
from dhm.randomness import generator

Batch = tuple[torch.Tensor, torch.Tensor]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
"""Channel statistics of ImageNet, which its released weights expect; used for any streamed or re-identification set."""


@dataclass(frozen=True)
class Images:
    """Labelled images as bytes.

    Attributes:
        pixels: (N, 3, H, W) uint8.
        labels: (N,) int64.
        mean, std: per channel, (3,), of pixels scaled to [0, 1]; what batches are normalised with.
        crop: (height, width) that training cuts out of larger images; None keeps the images' own size, after padding.
        task: the search these images are tested by, if no class stands for them.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    crop: tuple[int, int] | None = None
    task: SingleQuery | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def spread(self, count: int) -> "Images":
        """So many of the images at equal distances: the first ones of a set read from folders are of one class."""
        chosen = torch.arange(min(count, len(self))) * len(self) // min(count, len(self))
        return replace(self, pixels=self.pixels[chosen], labels=self.labels[chosen])

    def to(self, device: torch.device) -> "Images":
        """The same images on another device."""
        pixels, labels, mean, std = (t.to(device) for t in (self.pixels, self.labels, self.mean, self.std))
        task = None if self.task is None else self.task.to(device)
        return replace(self, pixels=pixels, labels=labels, mean=mean, std=std, task=task)

    @property
    def checksum(self) -> int:
        """CRC-32 of pixels and labels: whether two runs saw the same images."""
        return zlib.crc32(self.labels.cpu().numpy().tobytes(), zlib.crc32(self.pixels.cpu().numpy().tobytes()))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) bytes -> floats of zero mean and unit deviation over the training set, channels last."""
        return normalise(pixels, self.mean, self.std)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images as they are trained on."""
        return self.crop or (self.pixels.shape[-2], self.pixels.shape[-1])

    @property
    def image_size(self) -> int:
        """Pixels of a side, the height where they differ."""
        return self.size[0]

    @property
    def unreadable(self) -> set[str]:
        """Sentences on the training images left out because they cannot be read: all were read beforehand."""
        return set()

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-len(self) // batch_size)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, *, augment: str, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Shuffled batches of an epoch, from step `start` on.

        Order and augmentation are functions of (seed, epoch, step) alone, so a resumed run continues with the
        very batches it missed. Of each batch, `rank` gets every `world`-th image. `augment` is "crop" or "none".
        """
        order = torch.randperm(len(self), generator=generator(seed, epoch)).to(self.pixels.device)
        for step in range(start, self.steps(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            pixels = self.pixels[chosen]
            if augment == "crop":
                pixels = crop_and_flip(pixels, generator(seed, epoch, step), self.crop)
            yield self.normalise(pixels[rank::world]), self.labels[chosen][rank::world]

    def test_batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Every image once, in order, as it is; `rank` gets every `world`-th image, none twice."""
        mine = torch.arange(rank, len(self), world, device=self.pixels.device)
        for chosen in mine.split(batch_size):
            yield self.normalise(self.pixels[chosen]), self.labels[chosen]


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on a device, without waiting for the work a GPU has still to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) bytes -> floats on the scale of `mean` and `std` (3,), channels last."""
    shape = (1, 3, 1, 1)
    scaled = pixels.contiguous(memory_format=torch.channels_last).float() / 255
    return (scaled - mean.view(shape)) / std.view(shape)


def channel_statistics(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel on the scale [0, 1], exact: from the counts of the 256 values."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)]).double()
    values, shares = torch.arange(256).double() / 255, counts / counts.sum(dim=1, keepdim=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(dim=1)
    return mean.float(), variance.sqrt().clamp_min(1e-3).float()


def crop_and_flip(pixels: torch.Tensor, rng: torch.Generator, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Cut a rectangle out at random and mirror every second image: (N, 3, H, W) -> (N, 3, *size).

    Without a size the images are padded by 4 pixels and cut to their old one. The padding is raw black, before
    normalisation, as in the released program.
    """
    if size is None:
        size = pixels.shape[-2], pixels.shape[-1]
        pixels = F.pad(pixels, (4, 4, 4, 4))
    (height, width), (count, _, rows_there, columns_there), device = size, pixels.shape, pixels.device
    choices = rows_there - height + 1, columns_there - width + 1, 2
    draws = torch.stack([torch.randint(0, most, (count, 1), generator=rng) for most in choices])
    top, left, mirrored = upload(draws, device)
    rows = top + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    columns = left + torch.where(mirrored.bool(), columns.flip(1), columns)
    images = torch.arange(count, device=device)[:, None, None]
    return pixels.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
