"""DHM for any convolutional network: a torchvision, timm or hand-written module, trained with side branches."""

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from dhm.attach.growing import grow
from dhm.attach.network import AttachedNet, Tail
from dhm.attach.tracing import Trace, trace
from dhm.branches import MAIN
from dhm.errors import InputError
from dhm.randomness import generator

__all__ = ["AttachedNet", "Tail", "attach"]

Branch = str | tuple[str, nn.Module]
"""A root by its module's name, from which a branch is grown; or the root and a hand-written module."""


def attach(
    module: nn.Module, at: Sequence[str] | None = None, *, branches: Mapping[str, Branch] | None = None,
    width: float = 2.0, image_size: int | None = None, example: torch.Tensor | None = None, seed: int | None = None,
) -> AttachedNet:  # fmt: skip
    """Grow side branches on a network, after the paper's three principles (appendix A).

    A branch is made of the network's own later blocks with weights of its own, so blocks and down-samplings are the network's. The
    branch from the deepest root (B1) is `width` times as wide, the others (B2, ...) have half the blocks in their last
    stage. Where a network's code does not allow it, `AttachedNet.describe` says so. The module itself is left as it
    is: code, weights, state dict.

    Args:
        module: a network from images (N, C, H, W) to logits (N, classes).
        at: names of the root modules, as `module.named_modules()` gives them; a branch starts from their output. By
            default B1 forks after the last stage but one and B2 one stage further down, a stage being what runs
            at one resolution.
        branches: instead of `at`: name -> root, or name -> (root, your own module from the root's output to logits
            (N, classes)), the deepest first.
        width: how many times wider than the network's B1's stages are.
        image_size: pixels of a side of an image the network takes, to trace shapes with; by default sizes from 224 down
            are tried. Training may use others if the network itself does not mind.
        example: a batch of images instead, of which the shape is looked at.
        seed: of the branches' first weights; by default they are drawn from torch's global generator.

    Raises:
        InputError: no such module, or the network cannot be branched there or at all; the sentence says where it
            stopped and what to pass instead.
    """
    if at is not None and branches is not None:
        raise InputError("give either at=[roots] or branches={name: root}, not both")
    if width <= 0:
        raise InputError(f"width must be positive, not {width}")
    if isinstance(at, str) or (at is not None and not at):
        raise InputError(f"at must be a list of module names, not {at!r}")
    if branches is not None:
        return AttachedNet(module, _as_given(module, branches, width, image_size, example, seed))
    for root in at or ():
        _check_name(module, root)
    traced = trace(module, image_size, example)
    roots = sorted(set(at), key=lambda root: -_position(traced, root)) if at is not None else designed_roots(traced)
    grown = _grow_all(module, traced, {f"B{number}": root for number, root in enumerate(roots, start=1)}, width, seed)
    return AttachedNet(module, grown)


def designed_roots(traced: Trace) -> list[str]:
    """Roots of B1 and B2: the ends of the last stage but one and of the stage before that, if there is one.

    Raises:
        InputError: the network has a single stage.
    """
    ends = traced.levels
    if len(ends) < 2:
        raise InputError(
            f"{type(traced.net).__name__} cannot be branched automatically: on an image of "
            f"{'x'.join(map(str, traced.image))} all modules that everything passes through work at one resolution "
            f"{f'(up to {ends[0]})' if ends else '(none has convolutions)'}; pass the roots by at=[names of modules] or a larger "
            "image_size"
        )
    return ends[-2::-1][:2]


def _grow_all(
    module: nn.Module, traced: Trace, roots: Mapping[str, str], width: float, seed: int | None
) -> dict[str, tuple[str, nn.Module]]:
    rng = None if seed is None else generator(seed)
    deepest = max(roots.values(), key=lambda root: _position(traced, root))
    return {
        name: (root, grow(module, traced, root, width if root == deepest else 1.0, root != deepest, rng))
        for name, root in roots.items()
    }


def _as_given(
    module: nn.Module, branches: Mapping[str, Branch], width: float, image_size: int | None,
    example: torch.Tensor | None, seed: int | None,
) -> dict[str, tuple[str, nn.Module]]:  # fmt: skip
    """Hand-written branches as they are, the others grown; the network is traced only for the latter."""
    for name, branch in branches.items():
        if name == MAIN or not name.isidentifier():
            raise InputError(f"a branch cannot be called {name!r}: take B1, B2, ... ({MAIN} is the network itself)")
        if not isinstance(branch, str) and not (
            isinstance(branch, tuple) and len(branch) == 2 and isinstance(branch[1], nn.Module)
        ):
            raise InputError(f"branch {name} must be a root's name or (root, module), not {branch!r}")
        _check_name(module, branch if isinstance(branch, str) else branch[0])
    to_grow = {name: branch for name, branch in branches.items() if isinstance(branch, str)}
    given = {name: branch for name, branch in branches.items() if not isinstance(branch, str)}
    if to_grow:
        given |= _grow_all(module, trace(module, image_size, example), to_grow, width, seed)
    return {name: given[name] for name in branches}


def _check_name(module: nn.Module, root: str) -> None:
    names = [name for name, _ in module.named_modules() if name]
    if root not in names:
        near = difflib.get_close_matches(root, names, n=1, cutoff=0.0)
        raise InputError(f"{type(module).__name__} has no module {root!r}; the nearest name is {near[0]!r}" if near else
                         f"{type(module).__name__} has no module {root!r}: it has no modules")  # fmt: skip


def _position(traced: Trace, root: str) -> int:
    """When the root is done in a pass; roots that cannot be are refused."""
    call = traced.calls.get(root)
    fit = [name for name in traced.spine if traced.calls[name].map_size is not None]
    if call is None or call.times != 1:
        raise InputError(f"no branch can root at {root}: it runs {call.times if call else 0} times in a pass, not once")
    if call.map_size is None:
        raise InputError(f"no branch can be grown from {root}: its output is not a map (N, C, H, W); take an earlier module")
    if root not in traced.spine:
        later = min((n for n in fit if traced.calls[n].end > call.end), key=lambda n: traced.calls[n].end, default=None)
        raise InputError(
            f"no branch can be grown from {root}: parts of the network go around it"
            + (f"; the next module that everything passes through is {later!r}" if later else "")
        )
    return call.end
