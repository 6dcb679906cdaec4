"""A network as stem, stages and head, and the blueprint that builds it or any tail of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from dhm.errors import InputError

Modules = dict[str, nn.Module]
"""Modules in the order they run, by the name they carry in the state dict."""


class StagedNet(nn.Module):
    """Stem, stages and head over modules that keep flat names (`conv1`, `layer1`, ..., `fc`).

    A whole network has a stem; a tail, which starts from an inner representation, has none. The last module of
    the head is the linear classifier.

    Args:
        stem, stages, head: modules by name, in running order.
        channels: channels of the input of the first stage, then of the output of every stage.
    """

    def __init__(
        self, stem: Mapping[str, nn.Module], stages: Sequence[Mapping[str, nn.Module]],
        head: Mapping[str, nn.Module], channels: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.channels = tuple(channels)
        self._stem, self._head = tuple(stem), tuple(head)
        self._stages = tuple(tuple(stage) for stage in stages)
        for part in (stem, *stages, head):
            for name, module in part.items():
                self.add_module(name, module)

    def _sequence(self, names: Sequence[str]) -> nn.Sequential:
        return nn.Sequential(*(self.get_submodule(name) for name in names))

    @property
    def stem(self) -> nn.Sequential:
        """What runs before the first stage."""
        return self._sequence(self._stem)

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The stages; a branch may be rooted after each of them."""
        return tuple(self._sequence(names) for names in self._stages)

    @property
    def parts(self) -> tuple[nn.Sequential, ...]:
        """All that runs before the head: the stem, where there is one, and the stages."""
        return (*((self.stem,) if self._stem else ()), *self.stages)

    @property
    def head(self) -> nn.Sequential:
        """What turns the last stage's output into logits."""
        return self._sequence(self._head)

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, (N, features) -> (N, classes)."""
        return self.get_submodule(self._head[-1])  # type: ignore[return-value]

    def run(self, names: Sequence[str], x: torch.Tensor) -> torch.Tensor:
        """Pass `x` through the named modules (cheaper than building the `nn.Sequential` at every step)."""
        for name in names:
            x = self._modules[name](x)  # type: ignore[misc]
        return x

    def representations(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Input of the first stage and output of every stage: the places a branch can be rooted at."""
        out = [self.run(self._stem, x)]
        for names in self._stages:
            out.append(self.run(names, out[-1]))
        return out

    def descriptor(self, representation: torch.Tensor) -> torch.Tensor:
        """The last stage's output (N, C, H, W) -> the pooled features (N, C) the classifier sees."""
        return self.run(self._head[:-1], representation)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Images (or, for a tail, its root's representation) -> features before the classifier, (N, C)."""
        return self.descriptor(self.representations(x)[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (or, for a tail, its root's representation) -> logits (N, classes)."""
        return self.classifier(self.features(x))


@dataclass(frozen=True)
class Blueprint(ABC):
    """A member of a family of networks. Subclasses are frozen dataclasses of the family's parameters.

    Attributes:
        num_classes: outputs of the classifier.
        depths: building blocks in each stage of the network.
        broad: how much wider than the network's own last stage the paper makes branch B1.
    """

    num_classes: int = 100
    broad: ClassVar[float] = 2.0

    @property
    @abstractmethod
    def depths(self) -> tuple[int, ...]: ...

    @abstractmethod
    def stem(self) -> tuple[Modules, int]:
        """Modules before the first stage, and the channels they put out."""

    @abstractmethod
    def stage(self, index: int, channels: int, depth: int, width: float) -> tuple[Modules, int]:
        """Stage `index` (from 1) of `depth` blocks on `channels` input channels, `width` times as wide as usual;
        its modules and the channels they put out."""

    @abstractmethod
    def head(self, channels: int) -> Modules:
        """Pooling and classifier for `channels` input channels."""

    def network(self) -> StagedNet:
        """The whole network, freshly initialised."""
        stem, channels = self.stem()
        return self._assemble(stem, channels, 0, self.depths, [1.0] * len(self.depths))

    def tail(self, root: int, channels: int, depths: Sequence[int], width: float) -> StagedNet:
        """The stages after `root` with other depths and width, and a head; no depths: the head alone."""
        return self._assemble({}, channels, root, depths, [width] * len(depths))

    def pathway(self, root: int, depths: Sequence[int], width: float) -> StagedNet:
        """The whole way of a branch as a network of its own: the trunk up to `root`, then the tail."""
        stem, channels = self.stem()
        widths = [1.0] * root + [width] * len(depths)
        return self._assemble(stem, channels, 0, [*self.depths[:root], *depths], widths)

    def _assemble(
        self, stem: Modules, channels: int, root: int, depths: Sequence[int], widths: Sequence[float]
    ) -> StagedNet:
        stages, put_out = [], [channels]
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True), start=root + 1):
            modules, channels = self.stage(index, channels, depth, width)
            stages.append(modules)
            put_out.append(channels)
        net = StagedNet(stem, stages, self.head(channels), put_out)
        if not next(net.parameters()).is_meta:  # shapes alone have nothing to draw
            net.apply(initialize)
        return net


def widened(channels: float, width: float) -> int:
    """Channels of a layer made `width` times as wide, rounded down.

    Raises:
        InputError: none is left.
    """
    out = int(channels * width)
    if out < 1:
        raise InputError(f"width {width} leaves less than 1 of {channels:g} channels; take a larger one")
    return out


def initialize(module: nn.Module) -> None:
    """Convolutions from N(0, 2 / (k^2 out)), batch norm at one and zero, as the released program starts them."""
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def pooled_head(channels: int, num_classes: int) -> Modules:
    """Global average pooling and a linear classifier."""
    return {
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(channels, num_classes),
    }


def preactivated_head(channels: int, num_classes: int) -> Modules:
    """Batch norm and ReLU before the pooled head, as networks of pre-activated blocks need."""
    return {"bn": nn.BatchNorm2d(channels), "relu": nn.ReLU(inplace=True), **pooled_head(channels, num_classes)}


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size up to its stride, without bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
