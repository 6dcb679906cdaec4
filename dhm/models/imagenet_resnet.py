"""ResNet for large images (He et al. 2016, table 1), module for module as torchvision names it: Table 9."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from dhm.errors import InputError
from dhm.models.staged import Blueprint, Modules, conv1x1, conv3x3, pooled_head, widened

DEPTHS: dict[int, tuple[int, ...]] = {
    10: (1, 1, 1, 1),  # not in the paper: the smallest network with all four stages
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Blocks in each stage by depth; bottlenecks from 50 on."""


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut's 1x1 convolution where the shape changes, else None: the shortcut is the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = projection(in_channels, channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 has the stride, the last puts out 4 `channels`."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * channels
        self.conv1 = conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv1x1(channels, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


@dataclass(frozen=True)
class ImageNetResNet(Blueprint):
    """ResNet-`depth`: four stages of `base`, 2, 4 and 8 times `base` channels (4 times that out of bottlenecks).

    The stem shrinks an image by 4 and the stages by 8 more, so 32 pixels a side are the least that leave one.
    """

    depth: int = 18
    base: int = 64

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise InputError(f"imagenet_resnet: depth must be one of {', '.join(map(str, DEPTHS))}, not {self.depth}")
        if self.base < 1:
            raise InputError(f"imagenet_resnet: base must be at least 1 channel, not {self.base}")

    @property
    def depths(self) -> tuple[int, ...]:
        return DEPTHS[self.depth]

    def stem(self) -> tuple[Modules, int]:
        return {
            "conv1": nn.Conv2d(3, self.base, 7, stride=2, padding=3, bias=False),
            "bn1": nn.BatchNorm2d(self.base),
            "relu": nn.ReLU(inplace=True),
            "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
        }, self.base

    def stage(self, index: int, channels: int, depth: int, width: float) -> tuple[Modules, int]:
        block = BasicBlock if self.depth < 50 else Bottleneck
        inner = widened(self.base * 2 ** (index - 1), width)
        out = block.expansion * inner
        first = block(channels, inner, stride=1 if index == 1 else 2)
        return {f"layer{index}": nn.Sequential(first, *(block(out, inner, 1) for _ in range(depth - 1)))}, out

    def head(self, channels: int) -> Modules:
        return pooled_head(channels, self.num_classes)
