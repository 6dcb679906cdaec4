"""Reading a foreign network: which modules run, on what maps, and through which of them everything passes.

The network is traced without arithmetic, on a copy of shapes alone, so tracing costs neither memory nor draws.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from dhm.errors import InputError

SIZES = (224, 64, 32, 28)
"""Pixels of a side that are tried, in this order, where the user names none: large ones keep stages apart."""


@dataclass
class Call:
    """What a module did in one pass.

    Attributes:
        start, end: when it was first entered and last left, on a clock that ticks at every entrance and exit.
        given: shape of the first tensor it was given.
        output: what it gave, as tensors of shapes alone.
        times: how often it ran.
    """

    start: int
    given: torch.Size | None
    end: int = -1
    output: Any = None
    times: int = 0

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
    """

    net: nn.Module
    image: tuple[int, ...]
    calls: dict[str, Call]
    spine: set[str]
    classes: int
    modules: dict[str, nn.Module] = field(default_factory=dict)

    @cached_property
    def levels(self) -> list[str]:
        """The module that ends each stage, from the image to the logits.

        A stage is a resolution at which some convolution larger than 1x1 puts out its map. It ends with the last
        module of the spine at this resolution, but for parts of what does the down-sampling (the norm before a strided
        convolution, say).
        """
        along = {name: call for name, call in self.calls.items() if name in self.spine}
        found = {call.map_size: name for name, call in along.items() if self._in_stage(name, call)}
        return [found[size] for size in dict.fromkeys(self._spatial) if size in found]

    @cached_property
    def _spatial(self) -> dict[torch.Size, list[str]]:
        """Sizes of the maps that convolutions larger than 1x1 put out -> their names."""
        sizes: dict[torch.Size, list[str]] = {}
        for name, call in self.calls.items():
            module = self.modules[name]
            if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and call.map_size is not None:
                sizes.setdefault(call.map_size, []).append(name)
        return sizes

    def _in_stage(self, name: str, call: Call) -> bool:
        size = call.map_size
        if size not in self._spatial:
            return False
        for parent in parents(name):
            around = self.calls.get(parent)
            if around is None or around.map_size is None or around.map_size == size or around.given is None:
                continue
            works_here = all(other.startswith(parent + ".") for other in self._spatial[size])
            if around.given[2:] == size and not works_here:
                return False
        return True


def parents(name: str) -> Iterator[str]:
    """Names of the modules around a module, from the nearest out."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def shapes_of(module: nn.Module) -> nn.Module:
    """A copy whose tensors are shapes alone, on the device "meta", without the hooks that watch the original.

    Hooks that run before a module stay: with them pruning and weight normalisation make its weights.
    """
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False) for p in module.parameters()
    }
    memo |= {id(b): torch.empty_like(b, device="meta") for b in module.buffers()}
    made = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    memo |= {id(t): torch.empty_like(t, device="meta") for t in made if t.grad_fn is not None}  # those have no copy
    shapes = copy.deepcopy(module, memo)
    for part in shapes.modules():
        for watching in ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(part, watching).clear()
    return shapes


def trace(module: nn.Module, image_size: int | None = None, example: torch.Tensor | None = None) -> Trace:
    """Follow one pass in eval mode over an image of `image_size` pixels a side or of the shape of `example`.

    Raises:
        InputError: the network has no convolutions, does not run on such images, or does not answer with logits.
    """
    net = shapes_of(module).eval()
    first = next((part for part in net.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None:
        raise InputError(f"{type(module).__name__} has no spatial feature maps (no Conv2d), so no branch can be grown")
    if example is not None and example.dim() != 4:
        raise InputError(f"example must be a batch of images (N, C, H, W), not of shape {tuple(example.shape)}")
    if example is not None:
        images: list[tuple[int, ...]] = [tuple(example.shape[1:])]
    else:
        sides = [image_size] if image_size else SIZES
        images = [(channels, side, side) for channels in dict.fromkeys((first.in_channels, 3)) for side in sides]
    for image in images:
        watch = Watch(net)
        try:
            return watch.follow(image)
        except InputError:
            raise
        except Exception as error:  # whatever the user's own code raises on an image it does not take
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            stopped = watch.running[-1] if watch.running else "its own forward"
    sizes = " or ".join("x".join(map(str, image)) for image in images)
    raise InputError(
        f"{type(module).__name__} could not be traced on an image of {sizes}: it stopped at {stopped} ({reason}); "
        "pass the image_size it takes, or hand-written branches={name: (root, module)}, which need no tracing"
    )


class Watch:
    """Follows one pass through a network of shapes; `running` is the stack of modules it is in."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.modules = {name: module for name, module in net.named_modules() if name}
        self.calls: dict[str, Call] = {}
        self.nodes: dict[str, Any] = {}
        self.running: list[str] = []
        self.clock = 0

    def follow(self, image: tuple[int, ...]) -> Trace:
        hooks = []
        for name, module in self.modules.items():
            hooks += [
                module.register_forward_pre_hook(self._enter(name), with_kwargs=True),
                module.register_forward_hook(self._leave(name)),
            ]
        x = torch.zeros(2, *image, device="meta", dtype=_dtype(self.net), requires_grad=True)
        try:
            with torch.enable_grad():
                output = self.net(x.clone())
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(output, torch.Tensor) or output.dim() != 2:
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
            raise InputError(
                f"{type(self.net).__name__} must answer with logits (N, classes) to grow branches, not {shape}"
            )
        through = _dominators(output)
        once = {name for name, call in self.calls.items() if call.times == 1}
        spine = {name for name in once if self.nodes[name] in through}
        return Trace(self.net, image, self.calls, spine, output.shape[1], self.modules)

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.running.append(name)
            self.clock += 1
            tensor = first_tensor((args, kwargs))
            call = self.calls.pop(name, None) or Call(self.clock, None if tensor is None else tensor.shape)
            self.calls[name] = call

        return hook

    def _leave(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.running.pop()
            self.clock += 1
            call = self.calls.pop(name)
            call.end, call.times = self.clock, call.times + 1
            call.output = tree_map(lambda t: t.detach() if isinstance(t, torch.Tensor) else t, output)
            self.nodes[name] = output.grad_fn if isinstance(output, torch.Tensor) else None
            self.calls[name] = call  # last in the order of leaving

        return hook


def first_tensor(tree: Any) -> torch.Tensor | None:
    """The first tensor among a module's arguments, however they are nested."""
    return next((leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)), None)


def _dtype(net: nn.Module) -> torch.dtype:
    return next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)


def _dominators(output: torch.Tensor) -> set[Any]:
    """Nodes of the autograd graph that lie on every way from the output back to the image.

    The image alone requires a gradient. Ways are counted from both ends: a node lies on all of them if the product
    of its two counts is the number of all.
    """
    if output.grad_fn is None:
        return set()
    order: list[Any] = []
    seen: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(output.grad_fn, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(child, False) for child, _ in node.next_functions if child is not None and child not in seen]
    below: dict[Any, int] = {}
    for node in order:  # children come first
        children = [child for child, _ in node.next_functions if child is not None]
        below[node] = sum(below[child] for child in children) if children else 1
    above = dict.fromkeys(order, 0)
    above[output.grad_fn] = 1
    for node in reversed(order):
        for child, _ in node.next_functions:
            if child is not None:
                above[child] += above[node]
    return {node for node in order if above[node] * below[node] == below[output.grad_fn]}
