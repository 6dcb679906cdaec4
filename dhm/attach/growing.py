"""Branches from a network's own later blocks: cut at the root, shortened, widened, drawn anew."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dhm.attach.network import Entrance, Passed, Tail
from dhm.attach.tracing import Trace, first_tensor, parents, shapes_of
from dhm.errors import InputError


def grow(
    module: nn.Module, trace: Trace, root: str, width: float, short: bool, rng: torch.Generator | None
) -> Tail:
    """A branch from the root to logits, of the network's own later modules with weights drawn anew.

    Args:
        module, trace: the network, and a pass through it.
        root: a module on the trace's spine.
        width: how many times wider; 1 where the network's code does not allow another width, which the branch notes.
        short: half the blocks in the last stage, rounded up.
        rng: where weights are drawn from, torch's global generator by default.

    Raises:
        InputError: the network's code does not run from this root.
    """
    blocks = last_blocks(trace, root)
    surplus = blocks.removable[-(len(blocks.names) // 2) :] if short and len(blocks.names) > 1 else []
    stopped, reason = "", ""
    for asked_width, dropped in dict.fromkeys([(width, tuple(surplus)), (1.0, tuple(surplus)), (1.0, ())]):
        net = shapes_of(module).eval()
        _enter_at(net, trace, root)
        for name in dropped:
            _drop(net, name)
        tail = Tail(net, root, trace.image)
        fitting = Fitting(tail, trace, asked_width)
        try:
            fitting.run(trace.calls[root].output)
        except Exception as error:  # the user's own code, on widths or depths it may not be made for
            stopped, reason = stopped or fitting.running or root, reason or str(error).partition("\n")[0]
            continue
        tail.width, tail.blocks = fitting.widened, (len(blocks.names) - len(dropped), len(blocks.names))
        tail.note = _note(tail, width, short, stopped)
        draw(tail, module, rng)
        return tail
    raise InputError(
        f"no branch can be grown from {root}: the network's code stopped at {stopped} ({reason}); pass another root by at=[...], or a "
        "hand-written branch by branches={name: (root, module)}"
    )


def _note(tail: Tail, width: float, short: bool, stopped: str) -> str:
    if width != 1 and not math.isclose(tail.width, width, rel_tol=0.1):
        return f"not widened by {width:g}: the code {f'at {stopped} ' if stopped else ''}fixes the number of channels"
    if short and tail.blocks[0] == tail.blocks[1]:
        return "not shortened: no block of its last stage can be left out"
    return ""


def _enter_at(net: nn.Module, trace: Trace, root: str) -> None:
    """Put an entrance at the root, and stand-ins for what only runs before it."""
    end = trace.calls[root].end
    for name, module in _outermost(net):
        if name == root:
            net.set_submodule(name, Entrance())
        elif name in trace.calls and net.get_submodule(name) is module:
            inside = [call for other, call in trace.calls.items() if f"{other}.".startswith(f"{name}.")]
            if all(call.end < end for call in inside):
                net.set_submodule(name, Passed(trace.calls[name].output))


def _outermost(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules by name, parents first; children are those of the moment, so what was replaced is not entered."""
    for child in list(module._modules):
        name = f"{prefix}{child}"
        inner = module._modules[child]
        if inner is not None:
            yield name, inner
            yield from _outermost(module._modules[child] or inner, f"{name}.")


class Blocks:
    """Building blocks of a network's last stage, in running order.

    Attributes:
        names: all of them.
        removable: those the network can do without: they keep the shape of their map, or are listed by their parent, which
            runs those that are there (a dense block).
    """

    def __init__(self, names: list[str], removable: list[str]) -> None:
        self.names, self.removable = names, removable


def last_blocks(trace: Trace, root: str) -> Blocks:
    """The blocks of the last stage after the root.

    Blocks are modules of one class at one depth of nesting, on the spine, of which at least one keeps the shape of its map;
    or what a ModuleDict with a forward of its own lists.
    """
    levels = trace.levels
    begin = max([trace.calls[name].end for name in (root, *levels[-2:-1])])
    stage = {
        name: call for name, call in sorted(trace.calls.items(), key=lambda item: item[1].start)
        if call.start > begin and call.map_size == trace.calls[levels[-1]].map_size
    }  # fmt: skip
    for name in stage:
        if isinstance(trace.modules[name], nn.ModuleDict):
            listed = [f"{name}.{child}" for child in trace.modules[name] if f"{name}.{child}" in trace.calls]
            return Blocks(listed, listed[1:])
    along = [name for name in stage if name in trace.spine and type(trace.modules[name]) is not nn.Sequential]
    keeping = [
        name for name in along
        if stage[name].given == stage[name].output.shape
        and any(isinstance(part, nn.Conv2d) for part in trace.modules[name].modules())
    ]  # fmt: skip
    for depth in sorted({name.count(".") for name in keeping}):
        kinds = {type(trace.modules[name]) for name in keeping if name.count(".") == depth}
        names = [name for name in along if name.count(".") == depth and type(trace.modules[name]) in kinds]
        if len(names) > 1:
            return Blocks(names, [name for name in names if name in keeping])
    return Blocks([], [])


def _drop(net: nn.Module, name: str) -> None:
    parent, _, child = name.rpartition(".")
    owner = net.get_submodule(parent)
    if isinstance(owner, nn.ModuleDict):
        del owner[child]
    else:
        net.set_submodule(name, nn.Identity())


class Fitting:
    """Fits the layers of a branch to the maps that reach them, while shapes pass through it for the first time.

    The rule: every layer takes what arrives and puts out `width` times what it did; a depthwise convolution puts out
    what arrives; grouped ones keep the width of a group; layers of the head, and the classifier, put out what they did. A
    tensor of any other module that has as many entries as its input had channels gets as many as now arrive.

    Attributes:
        running: the module that shapes have last entered.
        widened: channels at the end of the last stage, as a multiple of the network's.
    """

    def __init__(self, tail: Tail, trace: Trace, width: float) -> None:
        self.tail, self.trace, self.width = tail, trace, width
        self.running, self.widened = "", 1.0
        self.arrived: dict[str, torch.Size] = {}
        self.last = trace.levels[-1]
        layers = [name for name in trace.calls if isinstance(trace.modules[name], nn.Conv2d | nn.Linear)]
        head = {name for name in layers if trace.calls[name].start > trace.calls[self.last].end}
        self.kept = head | {max(layers, key=lambda name: trace.calls[name].start)}

    def run(self, representation: torch.Tensor) -> None:
        net = self.tail.net
        hooks = [
            module.register_forward_pre_hook(self._fit(name), with_kwargs=True)
            for name, module in net.named_modules() if name in self.trace.calls
        ]  # fmt: skip
        hooks.append(net.get_submodule(self.last).register_forward_hook(self._measure))
        try:
            with torch.no_grad():
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
        gated = self._gated(name)
        if gated is not None and self.trace.calls[gated].given[1] == before:  # type: ignore[index]
            return self.arrived[gated][1]
        return before if name in self.kept else max(1, round(before * self.width))

    def _gated(self, name: str) -> str | None:
        """The module whose map a pooled layer weighs (squeeze and excitation), if it does that."""
        given = self.trace.calls[name].given
        if given is None or math.prod(given[2:]) > 1:
            return None
        around = [parent for parent in parents(name) if parent in self.arrived]
        maps = [(parent, self.trace.calls[parent]) for parent in around]
        return next((p for p, c in maps if c.map_size and math.prod(c.map_size) > 1 and c.given == c.output.shape), None)


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
        name: (outputs, *p.shape[1:]) for name, p in _tensors(conv) if p.dim() and p.shape[0] == conv.out_channels
    }
    _resize(conv, {**shapes, "weight": (outputs, per_group, *conv.kernel_size)})
    conv.in_channels, conv.out_channels, conv.groups = channels, outputs, groups


def _follow(module: nn.Module, before: int, now: int) -> None:
    """Let a module's own tensors, and what it notes of their sizes, follow the channels of its input."""
    own = _tensors(module)
    _resize(module, {name: tuple(now if n == before else n for n in tensor.shape) for name, tensor in own})
    for name, value in list(vars(module).items()) if own else []:
        if isinstance(value, int) and value == before:
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


def draw(tail: Tail, module: nn.Module, rng: torch.Generator | None) -> None:
    """Give a branch of shapes its tensors, on the network's device.

    Each weight is drawn from a normal of the mean and deviation that the network's own tensor of this name has, the latter
    divided by the root of how many times more inputs a unit has. So a fresh network's branch starts as the network's own initialisation
    would start it, constants as constants; of trained weights it takes the scale and nothing else. Running statistics
    start anew; other buffers are the network's.
    """
    device = next(module.parameters()).device
    tail.to_empty(device=device)
    originals = dict([*module.named_parameters(), *module.named_buffers()])
    if device.type == "meta":
        return
    with torch.no_grad():
        for name, parameter in tail.net.named_parameters():
            _draw_like(parameter, originals[name], rng)
            parameter.requires_grad_(True)
        for name, buffer in tail.net.named_buffers():
            if buffer.shape == originals[name].shape:
                buffer.copy_(originals[name])
            else:
                _draw_like(buffer, originals[name], rng)
    for part in tail.net.modules():
        if hasattr(part, "reset_running_stats"):
            part.reset_running_stats()


def _draw_like(tensor: torch.Tensor, original: torch.Tensor, rng: torch.Generator | None) -> None:
    values = original.detach().double()
    deviation = float(values.std(correction=0)) if values.numel() else 0.0
    if tensor.dim() > 1:
        deviation *= math.sqrt(original[0].numel() / tensor[0].numel())
    drawn = torch.randn(tensor.shape, generator=rng) * deviation + float(values.mean())
    tensor.copy_(drawn)
