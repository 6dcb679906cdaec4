"""Fitting the layers of a branch to a width: what each must take and give for the network's code to run."""

import math
from typing import Any

import torch
from torch import nn

from dhm.attach.shapes import aside, first_tensor
from dhm.attach.stages import Trace, parents
from dhm.attach.tails import Tail


class Fitting:
    """Fits a branch of shapes alone, layer by layer, while a representation passes through it for the first time.

    A convolution or linear layer takes what arrives and puts out `width` times what it did, with these exceptions: a
    depthwise convolution puts out what arrives; a grouped one keeps the width of a group; the last layer of a gate
    (squeeze and excitation) puts out what its gate is to weigh; layers of the head put out what they did. Tensors of
    other modules, and the counts they keep, follow where they were as large as their input had channels.

    Attributes:
        running: the module that was entered last.
        widened: channels at the end of the last stage, as a multiple of the network's.
    """

    def __init__(self, tail: Tail, trace: Trace, width: float) -> None:
        self.tail, self.trace, self.width = tail, trace, width
        self.running, self.widened = "", 1.0
        self.arrived: dict[str, torch.Size] = {}
        self.last = trace.levels[-1]
        layers = [name for name in trace.calls if isinstance(trace.modules[name], nn.Conv2d | nn.Linear)]
        head = {name for name in layers if trace.calls[name].start > trace.calls[self.last].end}
        self.kept = head | {trace.classifier}

    def run(self, representation: torch.Tensor) -> None:
        """Fit all layers to the root's output (N, C, H, W).

        Raises:
            Exception: whatever the network's code raises on such a width, or ValueError from here.
        """
        net = self.tail.net
        hooks = [
            module.register_forward_pre_hook(self._fit(name), with_kwargs=True)
            for name, module in net.named_modules() if name in self.trace.calls
        ]  # fmt: skip
        if self.trace.calls[self.last].end > self.trace.calls[self.tail.root].end:  # else the branch is a head alone
            hooks.append(net.get_submodule(self.last).register_forward_hook(self._measure))
        try:
            with torch.no_grad(), aside():
                output = self.tail(representation)
        finally:
            for hook in hooks:
                hook.remove()
        if output.shape != (len(representation), self.trace.classes):
            raise ValueError(f"it answers with the shape {tuple(output.shape)}")

    def _measure(self, module: nn.Module, args: Any, output: torch.Tensor) -> None:
        self.widened = output.shape[1] / self.trace.calls[self.last].output.shape[1]

    def _fit(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.running = name
            now, before = first_tensor((args, kwargs)), self.trace.calls[name].given
            if name in self.arrived or now is None or before is None:
                return
            self.arrived[name] = now.shape
            if isinstance(module, nn.Conv2d):
                _fit_convolution(module, now.shape[1], self._outputs(name, module.out_channels))
            elif isinstance(module, nn.Linear):
                outputs = self._outputs(name, module.out_features)
                _resize(module, {"weight": (outputs, now.shape[-1]), "bias": (outputs,)})
                module.in_features, module.out_features = now.shape[-1], outputs
            elif len(now.shape) == len(before):
                changed = [(old, new) for old, new in zip(before[1:], now.shape[1:], strict=True) if old != new]
                if changed:
                    _follow(module, *changed[0])

        return hook

    def _outputs(self, name: str, before: int) -> int:
        """How many channels a layer shall put out."""
        gate = self._gate_around(name)
        if gate is not None and self.trace.calls[gate].output.shape[1] == before:
            return self.arrived[gate][1]
        return before if name in self.kept else max(1, round(before * self.width))

    def _gate_around(self, name: str) -> str | None:
        """The nearest module that keeps the shape of its map, around a layer that sees one pooled to 1x1."""
        given = self.trace.calls[name].given
        if given is None or math.prod(given[2:]) > 1:
            return None
        for parent in parents(name):
            call = self.trace.calls[parent] if parent in self.arrived else None
            if call and call.map_size and math.prod(call.map_size) > 1 and call.given == call.output.shape:
                return parent
        return None


def _fit_convolution(conv: nn.Conv2d, channels: int, outputs: int) -> None:
    per_group = channels if conv.groups == 1 else conv.in_channels // conv.groups
    if channels % per_group:
        raise ValueError(f"{channels} channels do not divide into groups of {per_group}")
    groups = channels // per_group
    if 1 < conv.groups == conv.in_channels:
        outputs = conv.out_channels // conv.in_channels * channels
    if outputs % groups:
        raise ValueError(f"{outputs} channels do not divide into {groups} groups")
    shapes = {
        name: (outputs, *t.shape[1:]) for name, t in _tensors(conv) if t.dim() and t.shape[0] == conv.out_channels
    }
    _resize(conv, {**shapes, "weight": (outputs, per_group, *conv.kernel_size)})
    conv.in_channels, conv.out_channels, conv.groups = channels, outputs, groups


def _follow(module: nn.Module, before: int, now: int) -> None:
    """Let a module's own tensors, and what it notes of their sizes, follow the channels of its input."""
    own = _tensors(module)
    _resize(module, {name: tuple(now if n == before else n for n in tensor.shape) for name, tensor in own})
    for name, value in list(vars(module).items()) if own else []:
        if type(value) is int and value == before:
            setattr(module, name, now)
        elif type(value) is tuple and before in value:
            setattr(module, name, tuple(now if n == before else n for n in value))


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [(name, tensor) for name, tensor in own if tensor.is_floating_point()]


def _resize(module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    for name, tensor in _tensors(module):
        if name in shapes and tuple(tensor.shape) != shapes[name]:
            resized = tensor.new_empty(shapes[name])
            setattr(module, name, nn.Parameter(resized) if isinstance(tensor, nn.Parameter) else resized)
