"""Reading a foreign network: which modules run, on what maps, and through which of them everything passes.

The network is traced without arithmetic, on a copy of shapes alone, so tracing costs neither memory nor draws.
"""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from dhm.attach.plain_weights import settle
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
        cut: names of the modules that a gradient reaches and does not leave, in this pass or in training mode.
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


def shapes_of(module: nn.Module) -> nn.Module:
    """A copy whose tensors are shapes alone, on the device "meta", without the hooks that watch the original.

    Hooks that run before a module stay, since they may change what it is given; weights that they or parametrizations
    make are plain ones in the copy.

    Raises:
        InputError: the module has no weights yet (`nn.LazyConv2d` before its first pass).
    """
    if any(nn.parameter.is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise InputError(f"{type(module).__name__} has lazy layers without weights: run it once on images, then attach")
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False) for p in module.parameters()
    }
    memo |= {id(b): torch.empty_like(b, device="meta") for b in module.buffers()}
    made = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    memo |= {id(t): torch.empty_like(t, device="meta") for t in made if t.grad_fn is not None}  # those have no copy
    shapes = copy.deepcopy(module, memo).eval()
    settle(shapes)
    for part in shapes.modules():
        for watching in ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(part, watching).clear()
    return shapes.to("meta")


def set_mode(net: nn.Module, training: bool) -> None:
    """Put a copy of shapes into a mode, past any `train` of its own; norms answer alike in both, and may be particular
    about the batch in training."""
    for part in net.modules():
        part.training = training and not isinstance(part, nn.modules.batchnorm._NormBase)


@contextmanager
def aside() -> Iterator[None]:
    """Passes that leave no trace: nothing drawn from the generator stays drawn, and nothing is compiled."""
    with torch.random.fork_rng(devices=()):
        if "torch._dynamo" not in sys.modules:  # so there is nothing compiled; its import takes seconds
            yield
        else:
            with torch.compiler.set_stance("force_eager"):
                yield


def trace(module: nn.Module, image_size: int | None = None, example: torch.Tensor | None = None) -> Trace:
    """Follow a pass over an image of `image_size` pixels a side or of the shape of `example`.

    It is a pass in eval mode; in training mode, if the network answers with something else there.

    Raises:
        InputError: the network has no convolutions, does not run on such images, or does not answer with logits.
    """
    net = shapes_of(module)
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
        watch = Watch(net, training=False)
        try:
            watch.follow(image)
        except Exception as error:  # whatever the user's own code raises on an image it does not take
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            stopped = watch.running[-1] if watch.running else "its own forward"
            continue
        return _as_trained(watch, image).read(image)
    sizes = " or ".join("x".join(map(str, image)) for image in images)
    raise InputError(
        f"{type(module).__name__} could not be traced on an image of {sizes}: it stopped at {stopped} ({reason}); "
        "pass the image_size it takes, or hand-written branches={name: (root, module)}, which need no tracing"
    )


def _as_trained(answering: "Watch", image: tuple[int, ...]) -> "Watch":
    """The pass to go by: in training mode if it gives something else than in eval mode."""
    learning = Watch(answering.net, training=True)
    try:
        learning.follow(image)
    except Exception:  # code that does not run on shapes alone when it trains; the pass in eval mode will do
        return answering
    same = _shape(learning.output) == _shape(answering.output)
    followed, other = (answering, learning) if same else (learning, answering)
    followed.cut |= other.cut if same else set()
    return followed


def _shape(answer: Any) -> Any:
    return answer.shape if isinstance(answer, torch.Tensor) else type(answer)


class Watch:
    """Follows one pass through a network of shapes; `running` is the stack of modules it is in."""

    def __init__(self, net: nn.Module, training: bool) -> None:
        self.net, self.training = net, training
        self.modules = {name: module for name, module in net.named_modules() if name}
        self.calls: dict[str, Call] = {}
        self.nodes: dict[str, Any] = {}
        self.cut: set[str] = set()
        self.running: list[str] = []
        self.clock = 0
        self.output: Any = None

    def follow(self, image: tuple[int, ...]) -> None:
        """Run the network on two images of this shape."""
        hooks = []
        for name, module in self.modules.items():
            hooks += [
                module.register_forward_pre_hook(self._enter(name), with_kwargs=True),
                module.register_forward_hook(self._leave(name)),
            ]
        x = torch.zeros(2, *image, device="meta", dtype=_dtype(self.net), requires_grad=True)
        set_mode(self.net, self.training)
        try:
            with torch.enable_grad(), aside():
                self.output = self.net(x.clone())
        finally:
            set_mode(self.net, False)
            for hook in hooks:
                hook.remove()

    def read(self, image: tuple[int, ...]) -> Trace:
        """What the pass shows.

        Raises:
            InputError: the answer is not logits, or no gradient leads from them to the image.
        """
        name, output = type(self.net).__name__, self.output
        if not isinstance(output, torch.Tensor) or output.dim() != 2:
            check_answer(output)
            raise InputError(
                f"{name} must answer with logits (N, classes) to grow branches, not of shape {tuple(output.shape)}"
            )
        if output.grad_fn is None:
            raise InputError(f"{name} cannot be branched: {cut_off(self._first_cut())}")
        through = _dominators(output)
        once = {name for name, call in self.calls.items() if call.times == 1}
        spine = {name for name in once if self.nodes[name] in through}
        return Trace(self.net, image, self.calls, spine, output.shape[1], self.training, self.cut, self.modules)

    def _first_cut(self) -> str:
        """The module in which gradients end, or after which they are no longer there."""
        if self.cut:
            return next(f"at {name}" for name in self.calls if name in self.cut)
        last = [name for name, call in self.calls.items() if call.differentiable[1]]
        return f"after {last[-1]}" if last else "before its first module"

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.running.append(name)
            self.clock += 1
            tensor = first_tensor((args, kwargs))
            call = self.calls.pop(name, None) or Call(self.clock, None if tensor is None else tensor.shape)
            call.differentiable = _differentiable((args, kwargs)), False
            self.calls[name] = call

        return hook

    def _leave(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.running.pop()
            self.clock += 1
            call = self.calls.pop(name)
            call.end, call.times = self.clock, call.times + 1
            call.output = tree_map(lambda t: t.detach() if isinstance(t, torch.Tensor) else t, output)
            call.differentiable = call.differentiable[0], _differentiable(output)
            if call.differentiable == (True, False):
                self.cut.add(name)
            self.nodes[name] = output.grad_fn if isinstance(output, torch.Tensor) else None
            self.calls[name] = call  # last in the order of leaving

        return hook


def check_answer(answer: Any) -> None:
    """See that a network answers with a tensor.

    Raises:
        InputError: with something else.
    """
    if not isinstance(answer, torch.Tensor):
        raise InputError(
            f"the network answers with a {type(answer).__name__} in training mode, where logits (N, classes) are "
            "needed: switch its own auxiliary classifiers off"
        )


def cut_off(where: str) -> str:
    """A sentence's end about gradients that stop somewhere."""
    return (
        f"gradients stop {where}, by torch.no_grad, .detach() or checkpointing with use_reentrant=True; freeze weights "
        "by requires_grad_(False) instead, and recompute with use_reentrant=False"
    )


def first_tensor(tree: Any) -> torch.Tensor | None:
    """The first tensor among a module's arguments, however they are nested."""
    return next((leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)), None)


def _differentiable(tree: Any) -> bool:
    return any(leaf.requires_grad for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def _dtype(net: nn.Module) -> torch.dtype:
    return next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)


def _dominators(output: torch.Tensor) -> set[Any]:
    """Nodes of the autograd graph that lie on every way from the output back to the image.

    The image alone requires a gradient. Ways are counted from both ends: a node lies on all of them if the product
    of its two counts is the number of all.
    """
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
