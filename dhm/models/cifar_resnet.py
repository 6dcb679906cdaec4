"""ResNet for 32x32 images (He et al. 2016, section 4.2): Table 6."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from dhm.errors import InputError
from dhm.models.staged import Blueprint, Modules, conv3x3, pooled_head, widened


class ParameterFreeShortcut(nn.Module):
    """Identity that pools 2x2 at a stride and appends zero channels, (N, C, H, W) -> (N, C', H/s, W/s)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)  # as the convolution beside it rounds odd sizes
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else ParameterFreeShortcut(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


@dataclass(frozen=True)
class CifarResNet(Blueprint):
    """ResNet of `depth` = 6n + 2 layers: three stages of n blocks with 16, 32 and 64 channels."""

    depth: int = 32

    def __post_init__(self) -> None:
        if self.depth < 8 or (self.depth - 2) % 6:
            raise InputError(f"cifar_resnet: depth must be 6n + 2 with n >= 1 (8, 14, 20, 32, ...), not {self.depth}")

    @property
    def depths(self) -> tuple[int, ...]:
        return (self.depth // 6,) * 3

    def stem(self) -> tuple[Modules, int]:
        return {"conv1": conv3x3(3, 16), "bn1": nn.BatchNorm2d(16), "relu": nn.ReLU(inplace=True)}, 16

    def stage(self, index: int, channels: int, depth: int, width: float) -> tuple[Modules, int]:
        out = widened(16 * 2 ** (index - 1), width)
        first = BasicBlock(channels, out, stride=1 if index == 1 else 2)
        return {f"layer{index}": nn.Sequential(first, *(BasicBlock(out, out, 1) for _ in range(depth - 1)))}, out

    def head(self, channels: int) -> Modules:
        return pooled_head(channels, self.num_classes)
