"""A data set as training sees it, whether its images are resident or streamed."""

from dataclasses import dataclass, replace

import torch

from dhm.data.images import Images
from dhm.data.streaming import Streamed

ImageSet = Images | Streamed


@dataclass(frozen=True)
class TrainAndTest:
    """A data set: images to train on, images to test on, the names of the classes, the share of the training
    labels that was made wrong, and in which form the set was found."""

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    wrong_labels: float = 0.0
    origin: str = ""

    def to(self, device: torch.device) -> "TrainAndTest":
        """The same data with its batches on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def summary(self) -> dict[str, int | float | str]:
        """What a run record keeps of the data it saw."""
        return {
            "name": self.name, "classes": len(self.classes), "image_size": self.train.image_size,
            "train_images": len(self.train), "test_images": len(self.test),
            "wrong_labels": self.wrong_labels,
            "train_checksum": self.train.checksum, "test_checksum": self.test.checksum,
        }  # fmt: skip
