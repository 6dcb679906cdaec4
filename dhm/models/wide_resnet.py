"""Wide residual networks (Zagoruyko & Komodakis 2016): Table 8."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from dhm.errors import InputError
from dhm.models.staged import Blueprint, Modules, conv1x1, conv3x3, preactivated_head, widened


class WideBlock(nn.Module):
    """Pre-activated pair of 3x3 convolutions with dropout between; where the shape changes, the shortcut too
    starts from the activated input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = None if same else conv1x1(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bn1(x))
        out = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(activated)))))
        return out + (x if self.shortcut is None else self.shortcut(activated))


@dataclass(frozen=True)
class WideResNet(Blueprint):
    """WRN-`depth`-`width`: depth = 6n + 4, three stages of n blocks with 16, 32 and 64 times `width` channels."""

    depth: int = 28
    width: int = 10
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise InputError(f"wrn: depth must be 6n + 4 with n >= 1 (10, 16, 22, 28, ...), not {self.depth}")
        if self.width < 1:
            raise InputError(f"wrn: width must be at least 1, not {self.width}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"wrn: dropout must be in [0, 1), not {self.dropout}")

    @property
    def depths(self) -> tuple[int, ...]:
        return (self.depth // 6,) * 3

    def stem(self) -> tuple[Modules, int]:
        return {"conv": conv3x3(3, 16)}, 16

    def stage(self, index: int, channels: int, depth: int, width: float) -> tuple[Modules, int]:
        out = widened(16 * 2 ** (index - 1) * self.width, width)
        blocks = [WideBlock(channels, out, 1 if index == 1 else 2, self.dropout)]
        blocks += [WideBlock(out, out, 1, self.dropout) for _ in range(depth - 1)]
        return {f"layer{index}": nn.Sequential(*blocks)}, out

    def head(self, channels: int) -> Modules:
        return preactivated_head(channels, self.num_classes)
