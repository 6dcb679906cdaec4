"""Copies of networks that are shapes alone, and passes through them that leave nothing behind."""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dhm.attach.plain_weights import settle
from dhm.errors import InputError

BY_HAND = "hand-written branches={name: (root, module)}"
"""What any network takes, whether it can be copied, traced and has maps or not."""


def shapes_of(module: nn.Module) -> nn.Module:
    """A copy whose tensors are shapes alone, on the device "meta", without the hooks that watch the original.

    Hooks that run before a module stay, since they may change what it is given; weights that they or parametrizations
    make are plain ones in the copy.

    Raises:
        InputError: the module has no weights yet (`nn.LazyConv2d` before its first pass), or cannot be copied.
    """
    if any(nn.parameter.is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise InputError(f"{type(module).__name__} has lazy layers without weights: run it once on images, then attach")
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False) for p in module.parameters()
    }
    memo |= {id(b): torch.empty_like(b, device="meta") for b in module.buffers()}
    made = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    memo |= {id(t): torch.empty_like(t, device="meta") for t in made if t.grad_fn is not None}  # those have no copy
    try:
        shapes = copy.deepcopy(module, memo).eval().to("meta")
    except Exception as error:  # whatever an attribute of the user's, or TorchScript, raises when it is copied
        raise InputError(
            f"{type(module).__name__} cannot be copied, and a branch is grown from a copy ({type(error).__name__}: "
            f"{error}); pass {BY_HAND}"
        ) from None
    settle(shapes)
    for part in shapes.modules():
        for watching in ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(part, watching).clear()
    return shapes


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


def first_tensor(tree: Any) -> torch.Tensor | None:
    """The first tensor among a module's arguments, however they are nested."""
    return next((leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)), None)


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
