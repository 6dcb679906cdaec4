"""What a pass through a network shows: its modules' calls, the stages they make up, where branches can root."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn


@dataclass
class Call:
    """What a module did in one pass.

    Attributes:
        start, end: when it was first entered and last left, on a clock that ticks at every entrance and exit.
        given: shape of the first tensor it was given.
        output: what it gave, as tensors of shapes alone.
        times: how often it ran.
        differentiable: whether a gradient reaches what it was given, and what it gave.
    """

    start: int
    given: torch.Size | None
    end: int = -1
    output: Any = None
    times: int = 0
    differentiable: tuple[bool, bool] = (False, False)

    @property
    def map_size(self) -> torch.Size | None:
        """Height and width of its output if that is one map (N, C, H, W)."""
        return self.output.shape[2:] if isinstance(self.output, torch.Tensor) and self.output.dim() == 4 else None


@dataclass(frozen=True)
class Trace:
    """One pass of a network.

    Attributes:
        net: the copy of shapes that was traced.
        image: shape of the input without its batch, (C, H, W).
        calls: what ran, by name, in the order it was left.
        spine: names of the modules through whose output every way from image to logits leads: where a branch can root.
        classes: number of logits.
        training: whether the pass was one in training mode, which is followed where only that gives logits.
        cut: names of the modules through whose output no gradient passes, in this pass or in training mode.
    """

    net: nn.Module
    image: tuple[int, ...]
    calls: dict[str, Call]
    spine: set[str]
    classes: int
    training: bool
    cut: set[str]
    modules: dict[str, nn.Module] = field(default_factory=dict)

    @cached_property
    def classifier(self) -> str:
        """The layer that runs last."""
        layers = [name for name in self.calls if isinstance(self.modules[name], nn.Conv2d | nn.Linear)]
        return max(layers, key=lambda name: self.calls[name].start)

    @cached_property
    def levels(self) -> list[str]:
        """The module that ends each stage, from the image to the logits.

        A stage is a resolution at which some convolution larger than 1x1 puts out its map. It ends with the last
        module of the spine at this resolution, but for parts of what does the down-sampling (the norm before a strided
        convolution, say) and for the classifier, which may be a convolution too, unless there is nothing else.
        """
        found: dict[torch.Size | None, str] = {}
        for name, call in self.calls.items():
            before = call.end < self.calls[self.classifier].start
            if name in self.spine and self._in_stage(name, call) and (before or call.map_size not in found):
                found[call.map_size] = name
        return [found[size] for size in dict.fromkeys(self.spatial) if size in found]

    @cached_property
    def spatial(self) -> dict[torch.Size, list[str]]:
        """Sizes of the maps that convolutions larger than 1x1 put out -> their names.

        One that covers its whole map at once is a linear layer in another form.
        """
        sizes: dict[torch.Size, list[str]] = {}
        for name, call in self.calls.items():
            module = self.modules[name]
            if not isinstance(module, nn.Conv2d) or call.map_size is None or call.given is None:
                continue
            whole = tuple(call.given[2:]) == module.kernel_size and tuple(call.map_size) == (1, 1)
            if max(module.kernel_size) > 1 and not (whole and module.padding in ((0, 0), "valid")):
                sizes.setdefault(call.map_size, []).append(name)
        return sizes

    @property
    def cut_off(self) -> str | None:
        """A convolution of a stage that gradients do not pass, in no module that they do pass."""
        for name in itertools.chain.from_iterable(self.spatial.values()):
            if name in self.cut and all(parent in self.cut or parent not in self.calls for parent in parents(name)):
                return name
        return None

    def _in_stage(self, name: str, call: Call) -> bool:
        size = call.map_size
        if size not in self.spatial:
            return False
        for parent in parents(name):
            around = self.calls.get(parent)
            if around is None or around.map_size is None or around.map_size == size or around.given is None:
                continue
            works_here = all(other.startswith(parent + ".") for other in self.spatial[size])
            if around.given[2:] == size and not works_here:
                return False
        return True


def parents(name: str) -> Iterator[str]:
    """Names of the modules around a module, from the nearest out."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
