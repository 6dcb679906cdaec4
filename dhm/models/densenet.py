"""DenseNet and DenseNet-BC for 32x32 images (Huang et al. 2017): Table 7."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from dhm.errors import InputError
from dhm.models.staged import Blueprint, Modules, conv1x1, conv3x3, preactivated_head, widened


class DenseLayer(nn.Module):
    """Appends `growth` channels to its input: BN-ReLU-conv 3x3."""

    def __init__(self, in_channels: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, growth)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.dropout(self.conv1(F.relu(self.bn1(x))))], dim=1)


class BottleneckLayer(nn.Module):
    """Appends `growth` channels through a 1x1 bottleneck of four times as many (DenseNet-B)."""

    def __init__(self, in_channels: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, 4 * growth)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv3x3(4 * growth, growth)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.dropout(self.conv2(F.relu(self.bn2(out))))], dim=1)


class Transition(nn.Module):
    """BN-ReLU-conv 1x1 and 2x2 average pooling between two dense blocks."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = conv1x1(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


@dataclass(frozen=True)
class DenseNet(Blueprint):
    """DenseNet of `depth` layers and growth rate `growth` (k): three dense blocks, transitions between them.

    With `bottleneck` it is DenseNet-BC: every layer has a 1x1 bottleneck and transitions halve the channels.
    The stem has 16 channels, 2k with `bottleneck`, as in the released program; Table 7 prints 2k for all
    (`stem_channels=24`).
    """

    depth: int = 40
    growth: int = 12
    bottleneck: bool = False
    stem_channels: int | None = None
    dropout: float = 0.0

    broad: ClassVar[float] = 3.0

    def __post_init__(self) -> None:
        step = 6 if self.bottleneck else 3
        if self.depth < 4 + step or (self.depth - 4) % step:
            kind = "with bottleneck" if self.bottleneck else "without bottleneck"
            raise InputError(f"densenet: depth {kind} must be {step}n + 4 with n >= 1, not {self.depth}")
        if self.growth < 1:
            raise InputError(f"densenet: growth must be at least 1, not {self.growth}")
        if self.stem_channels is not None and self.stem_channels < 1:
            raise InputError(f"densenet: stem_channels must be at least 1, not {self.stem_channels}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"densenet: dropout must be in [0, 1), not {self.dropout}")

    @property
    def depths(self) -> tuple[int, ...]:
        return ((self.depth - 4) // (6 if self.bottleneck else 3),) * 3

    def stem(self) -> tuple[Modules, int]:
        channels = self.stem_channels or (2 * self.growth if self.bottleneck else 16)
        return {"conv1": conv3x3(3, channels)}, channels

    def stage(self, index: int, channels: int, depth: int, width: float) -> tuple[Modules, int]:
        growth = widened(self.growth, width)
        layer = BottleneckLayer if self.bottleneck else DenseLayer
        block = nn.Sequential(*(layer(channels + i * growth, growth, self.dropout) for i in range(depth)))
        channels += depth * growth
        if index == len(self.depths):
            return {f"layer{index}": block}, channels
        out = channels // 2 if self.bottleneck else channels
        return {f"layer{index}": block, f"transition{index}": Transition(channels, out)}, out

    def head(self, channels: int) -> Modules:
        return preactivated_head(channels, self.num_classes)
