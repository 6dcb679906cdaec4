"""Convolutions whose gradient torch's CPU library gets wrong, kept away from it.

In oneDNN the backward pass of a 1x1 convolution with a stride, on 2 to 15 channels in channels-last layout, writes
past its workspace: heaps are corrupted, processes die, and weight gradients may be wrong without a word (oneDNN issue
6035; docs/onednn.md says where it was seen). A 1x1 convolution with a stride of 2 looks at every second pixel of every
second row, so taking these pixels first and convolving them without a stride is the same. Once the library is mended
and torch carries it, this file can go, with the one call of it.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

BLOCK = 16
"""Channels from which oneDNN is right: a vector register of AVX-512 in float32; 8 with AVX2."""


def endangered(module: nn.Module) -> bool:
    """Whether a module is a convolution that oneDNN gets wrong."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and 1 < module.in_channels < BLOCK
        and module.groups == 1
        and (module.padding in ((0, 0), "valid") or module.padding_mode != "zeros")  # else it pads by itself
    )


def keep_clear(net: nn.Module) -> None:
    """Let the endangered convolutions of a network take their pixels first. Weights, names and settings stay."""
    for module in net.modules():
        if endangered(module) and not isinstance(module, SubsampledFirst):
            module.__class__ = _subsampled(type(module))


class SubsampledFirst(nn.Module):
    """Mixed into the class of a convolution, as `torch.nn.utils.parametrize` does it."""

    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    padding_mode: str

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)  # without a backward pass nothing is wrong
        stride, padding, mode = self.stride, self.padding, self.padding_mode
        if mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode)  # type: ignore[arg-type]
        self.stride, self.padding, self.padding_mode = (1, 1), (0, 0), "zeros"
        try:
            return super().forward(x[:, :, :: stride[0], :: stride[1]])
        finally:
            self.stride, self.padding, self.padding_mode = stride, padding, mode

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Pickled as a convolution of its own class, and mixed again when it is read."""
        return _again, (type(self).__mro__[2],), self.__dict__


_SUBSAMPLED: dict[type[nn.Module], type[nn.Module]] = {}
"""The mixed class of every class; always the same, since compiled code depends on it."""


def _subsampled(kind: type[nn.Module]) -> type[nn.Module]:
    return _SUBSAMPLED.setdefault(kind, type(kind.__name__, (SubsampledFirst, kind), {}))


def _again(kind: type[nn.Module]) -> nn.Module:
    return nn.Module.__new__(_subsampled(kind))
