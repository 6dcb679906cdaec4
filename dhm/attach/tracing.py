"""Reading a foreign network: which modules run, on what maps, and through which of them everything passes.

The network is traced without arithmetic, on a copy of shapes alone, so tracing costs neither memory nor draws.
"""

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from dhm.attach.shapes import BY_HAND, aside, check_answer, first_tensor, set_mode, shapes_of
from dhm.attach.stages import Call, Trace
from dhm.errors import InputError

SIZES = (224, 64, 32, 28)
"""Pixels of a side that are tried, in this order, where the user names none: large ones keep stages apart."""


def trace(module: nn.Module, image_size: int | None = None, example: torch.Tensor | None = None) -> Trace:
    """Follow a pass over an image of `image_size` pixels a side or of the shape of `example`.

    It is a pass in eval mode; in training mode, if the network answers with something else there.

    Raises:
        InputError: the network has no convolutions, does not run on such images, or does not answer with logits.
    """
    net = shapes_of(module)
    first = next((part for part in net.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None:
        raise InputError(
            f"{type(module).__name__} has no spatial feature maps (no Conv2d), so no branch can grow; pass {BY_HAND}"
        )
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
        f"pass the image_size it takes, or {BY_HAND}, which need no tracing"
    )


def _as_trained(answering: "Watch", image: tuple[int, ...]) -> "Watch":
    """The pass to go by: in training mode if it gives something else than in eval mode."""
    learning = Watch(answering.net, training=True)
    try:
        learning.follow(image)
    except Exception:  # code that does not run on shapes alone when it trains; the pass in eval mode will do
        return answering
    same = _shape(learning.output) == _shape(answering.output)
    if same:
        answering.elsewhere = learning.cut
    return answering if same else learning


def _shape(answer: Any) -> Any:
    return answer.shape if isinstance(answer, torch.Tensor) else type(answer)


class Watch:
    """Follows one pass through a network of shapes; `running` is the stack of modules it is in."""

    def __init__(self, net: nn.Module, training: bool) -> None:
        self.net, self.training = net, training
        self.modules = {name: module for name, module in net.named_modules() if name}
        self.calls: dict[str, Call] = {}
        self.nodes: dict[str, Any] = {}
        self.elsewhere: set[str] = set()
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
        return Trace(
            self.net, image, self.calls, spine, output.shape[1], self.training, self.cut | self.elsewhere, self.modules
        )

    @property
    def cut(self) -> set[str]:
        """Modules whose output passes no gradient on, if some module was given what does."""
        stopping = any(call.differentiable == (True, False) for call in self.calls.values())
        return {name for name, call in self.calls.items() if stopping and not call.differentiable[1]}

    def _first_cut(self) -> str:
        """The module in which gradients end, or after which they are no longer there."""
        for name, call in self.calls.items():
            if call.differentiable == (True, False):
                return f"at {name}"
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
            self.nodes[name] = output.grad_fn if isinstance(output, torch.Tensor) else None
            self.calls[name] = call  # last in the order of leaving

        return hook


def cut_off(where: str) -> str:
    """A sentence's end about gradients that stop somewhere."""
    return (
        f"gradients stop {where}, by torch.no_grad, .detach() or checkpointing with use_reentrant=True; freeze weights "
        "by requires_grad_(False) instead, and recompute with use_reentrant=False"
    )


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
