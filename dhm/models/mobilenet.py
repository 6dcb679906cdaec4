"""MobileNet (Howard et al. 2017): Table 10, with its misprints mended.

Table 10 prints "Conv(1, 256)" after the third strided depthwise layer, where 512 channels must follow for the
512-channel layers below it, and "s2" at the last depthwise layer, an old misprint of the MobileNet paper: its
stride is 1, or an image of 256x128 would not end at 8x4. Pooling is over the whole map, not over the printed 7x7.
"""

from dataclasses import dataclass

from torch import nn

from dhm.errors import InputError
from dhm.models.staged import Blueprint, Modules, conv1x1, conv3x3, pooled_head, widened

WIDTHS = (64, 128, 256, 512, 1024)


def separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A depthwise 3x3 and a pointwise 1x1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        conv1x1(in_channels, out_channels),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@dataclass(frozen=True)
class MobileNet(Blueprint):
    """MobileNet v1, every layer `width` times as wide as in the table; a stage begins where the image is halved."""

    width: float = 1.0

    def __post_init__(self) -> None:
        if self.width < 0.25:
            raise InputError(f"mobilenet: width must be at least 0.25, not {self.width}")

    @property
    def depths(self) -> tuple[int, ...]:
        return 1, 2, 2, 6, 2

    def stem(self) -> tuple[Modules, int]:
        channels = int(32 * self.width)
        return {"conv1": conv3x3(3, channels, stride=2), "bn1": nn.BatchNorm2d(channels),
                "relu": nn.ReLU(inplace=True)}, channels  # fmt: skip

    def stage(self, index: int, channels: int, depth: int, width: float) -> tuple[Modules, int]:
        out = widened(WIDTHS[index - 1] * self.width, width)
        first = separable(channels, out, stride=1 if index == 1 else 2)
        return {f"layer{index}": nn.Sequential(first, *(separable(out, out, 1) for _ in range(depth - 1)))}, out

    def head(self, channels: int) -> Modules:
        return pooled_head(channels, self.num_classes)
