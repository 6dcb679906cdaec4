"""Branches from a network's own later blocks: cut at the root, shortened, widened, drawn anew."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from dhm.attach.dependence import Dependence
from dhm.attach.fitting import Fitting
from dhm.attach.plain_weights import makers, own_tensors
from dhm.attach.shapes import aside, set_mode, shapes_of
from dhm.attach.stages import Call, Trace
from dhm.attach.tails import Entrance, LeftOut, Passed, StandIn, Tail
from dhm.errors import InputError


def grow(module: nn.Module, trace: Trace, root: str, width: float, short: bool, rng: torch.Generator | None) -> Tail:
    """A branch from the root to logits, of the network's own later modules with weights drawn anew.

    Where the network's code does not run so wide or short, the branch is as wide or long as the network, and notes it.

    Args:
        module, trace: the network, and a pass through it.
        root: a module on the trace's spine.
        width: how many times wider than the network.
        short: half the blocks in the last stage, rounded up.
        rng: where weights are drawn from; None is torch's global generator.

    Raises:
        InputError: the network's code does not run from this root.
    """
    blocks = last_blocks(trace, root)
    surplus = blocks.removable[-(len(blocks.names) // 2) :] if short and len(blocks.names) > 1 else []
    stopped, reason = "", ""
    shapes = dict.fromkeys([(width, tuple(surplus)), (1.0, tuple(surplus)), (1.0, ())])
    for (tried, dropped), empty in itertools.product(shapes, (True, False)):
        net = shapes_of(module)
        set_mode(net, trace.training)
        _enter_at(net, trace, root)
        for name in dropped:
            _drop(net, name)
        tail = Tail(net, root, trace.image, empty=empty)
        fitting = Fitting(tail, trace, tried)
        try:
            fitting.run(trace.calls[root].output)
        except Exception as error:  # the network's own code, on widths or depths it may not be made for
            stopped, reason = stopped or fitting.running or root, reason or str(error).partition("\n")[0]
            continue
        tail.width, tail.blocks = fitting.widened, (len(blocks.names) - len(dropped), len(blocks.names))
        own = {name for name, part in net.named_modules() if not isinstance(part, StandIn)}
        made = {maker for name, part in module.named_modules() if name in own for maker in makers(part)}
        tail.note = "; ".join(filter(None, [_note(tail, width, short, stopped), _plain(made)]))
        _keep_used(tail, trace)
        draw(tail, module, rng)
        return tail
    raise InputError(
        f"no branch can be grown from {root}: the network's code stopped at {stopped} ({reason}); pass another root by "
        "at=[...], or a hand-written branch by branches={name: (root, module)}"
    )


def _note(tail: Tail, width: float, short: bool, stopped: str) -> str:
    if width != 1 and not math.isclose(tail.width, width, rel_tol=0.1):
        return f"not widened by {width:g}: the code {f'at {stopped} ' if stopped else ''}fixes the number of channels"
    if short and tail.blocks[0] == tail.blocks[1]:
        return "not shortened: no block of its last stage can be left out"
    return ""


def _plain(makers: set[str]) -> str:
    return f"plain weights, without the network's {', '.join(sorted(makers))}" if makers else ""


def _keep_used(tail: Tail, trace: Trace) -> None:
    """Let a branch own what its answer depends on, in either mode.

    A parameter the answer does not depend on gets no gradient, which DDP refuses. The network's code may still ask for
    it on its way to the root, so it becomes a tensor beside the state dict; so do buffers of the modules around the
    root.
    """
    net = tail.net
    sources = dict([*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)])
    used: set[str] = set()
    for training in (False, True):
        set_mode(net, training)
        with contextlib.suppress(Exception), torch.no_grad(), aside(), Dependence(sources) as dependence:
            used |= dependence.of(tail(trace.calls[tail.root].output))
    later = {name for name, call in trace.calls.items() if call.start > trace.calls[tail.root].end}
    for name, part in net.named_modules():
        for key in [key for key, _ in part.named_parameters(name, recurse=False) if key not in used]:
            parameter = part._parameters.pop(key.rpartition(".")[2])
            part.register_buffer(key.rpartition(".")[2], parameter.detach(), persistent=False)
        if name not in later:
            unused = [key for key, _ in part.named_buffers(name, recurse=False) if key not in used]
            part._non_persistent_buffers_set |= {key.rpartition(".")[2] for key in unused}


def _enter_at(net: nn.Module, trace: Trace, root: str) -> None:
    """Put an entrance at the root, and stand-ins for what only runs before it."""
    end = trace.calls[root].end
    for name in _from_outside(net):
        if name == root:
            net.set_submodule(name, Entrance(net.get_submodule(name)))
        elif name in trace.calls:
            inside = [call for other, call in trace.calls.items() if f"{other}.".startswith(f"{name}.")]
            if all(call.end < end for call in inside):
                net.set_submodule(name, Passed(net.get_submodule(name), trace.calls[name].output))


def _from_outside(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of modules, parents first; a module that is replaced meanwhile is not entered."""
    for child in list(module._modules):
        yield f"{prefix}{child}"
        inner = module._modules[child]
        if inner is not None:
            yield from _from_outside(inner, f"{prefix}{child}.")


class Blocks(NamedTuple):
    """Building blocks of a network's last stage, in running order, and those of them it can do without."""

    names: list[str]
    removable: list[str]


def last_blocks(trace: Trace, root: str) -> Blocks:
    """The blocks of the last stage after the root.

    They are modules of one class at one depth of nesting, on the spine, of which at least one keeps the shape of its
    map. Failing that, dense layers: modules that all add the same number of channels to the map, or what a ModuleDict
    with a forward of its own holds; all but the first can go, since the layers that follow take what arrives.
    """
    levels = trace.levels
    begin = max(trace.calls[name].end for name in (root, *levels[-2:-1]))
    in_order = sorted(trace.calls.items(), key=lambda item: item[1].start)
    size = trace.calls[levels[-1]].map_size
    stage = {name: call for name, call in in_order if call.start > begin and call.map_size == size}
    for name in stage:
        parent = trace.modules[name]
        if isinstance(parent, nn.ModuleDict):
            held = [f"{name}.{child}" for child in parent.keys() if f"{name}.{child}" in trace.calls]  # noqa: SIM118
            return Blocks(held, held[1:])
    along = [name for name in stage if name in trace.spine and _is_block(trace.modules[name])]
    alike = [name for name in along if stage[name].given == stage[name].output.shape]
    for depth in sorted({name.count(".") for name in alike}):
        names = _of_one_class(trace, along, [name for name in alike if name.count(".") == depth])
        if len(names) > 1:
            return Blocks(names, [name for name in names if name in alike])
    adding = [name for name in along if _added(stage[name])]
    for name in adding:
        names = [other for other in _of_one_class(trace, adding, [name]) if _added(stage[other]) == _added(stage[name])]
        if len(names) > 1:
            return Blocks(names, names[1:])
    return Blocks([], [])


def _is_block(module: nn.Module) -> bool:
    """Whether it holds a convolution and is not a mere list of modules that do."""
    listed = type(module) is nn.Sequential and not any(isinstance(part, nn.Conv2d) for part in module)
    return not listed and any(isinstance(part, nn.Conv2d) for part in module.modules())


def _added(call: Call) -> int:
    """How many channels a module adds to its map, if it keeps height and width."""
    before, after = call.given, call.output.shape
    return max(0, after[1] - before[1]) if before is not None and before[2:] == after[2:] else 0


def _of_one_class(trace: Trace, names: list[str], examples: list[str]) -> list[str]:
    """Those of the names that are of a class and at a depth of nesting of the examples."""
    kinds = {(type(trace.modules[name]), name.count(".")) for name in examples}
    return [name for name in names if (type(trace.modules[name]), name.count(".")) in kinds]


def _drop(net: nn.Module, name: str) -> None:
    parent, _, child = name.rpartition(".")
    owner = net.get_submodule(parent)
    if isinstance(owner, nn.ModuleDict):
        del owner[child]
    else:
        net.set_submodule(name, LeftOut(net.get_submodule(name)))


def draw(tail: Tail, module: nn.Module, rng: torch.Generator | None) -> None:
    """Give a branch of shapes its tensors, on the network's device.

    A weight is drawn from a normal of the mean and the deviation that the network's own tensor of this name has, the
    latter divided by the square root of how many times more inputs a unit has. So branches of a fresh network start as
    its own initialisation would start them, constants as constants; of trained weights they take the scale and nothing
    else. Running statistics start anew; other buffers are the network's, repeated where they are longer here.
    """
    device = next(module.parameters()).device
    tail.to_empty(device=device).requires_grad_(True)
    if device.type == "meta":
        return
    originals = own_tensors(module)
    with torch.no_grad():
        for name, parameter in tail.net.named_parameters():
            _draw_like(parameter, originals[name], rng)
        for name, buffer in tail.net.named_buffers():
            buffer.copy_(_repeated(originals[name], buffer.shape))
    for part in tail.net.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            part.reset_running_stats()


def _repeated(original: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A tensor over and over along every dimension, up to a shape."""
    for dimension, size in enumerate(shape):
        index = torch.arange(size, device=original.device) % original.shape[dimension]
        original = original.index_select(dimension, index)
    return original


def _draw_like(tensor: torch.Tensor, original: torch.Tensor, rng: torch.Generator | None) -> None:
    values = original.detach().double()
    deviation = float(values.std(correction=0))
    if tensor.dim() > 1:
        deviation *= math.sqrt(original[0].numel() / tensor[0].numel())
    tensor.copy_(torch.randn(tensor.shape, generator=rng) * deviation + float(values.mean()))
