"""DHM for any convolutional network: a torchvision, timm or hand-written module, trained with side branches."""

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, cast

import torch
from torch import nn

from dhm.attach.growing import grow
from dhm.attach.network import AttachedNet
from dhm.attach.shapes import BY_HAND
from dhm.attach.stages import Trace
from dhm.attach.tails import Tail
from dhm.attach.tracing import cut_off, trace
from dhm.branches import BranchingNet
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

    A branch is made of the network's own later blocks with weights of its own, so blocks and down-samplings are the
    network's. The branch from the deepest root (B1) is `width` times as wide, the others (B2, ...) have half the blocks
    in their last stage. Where a network's code does not allow it, `AttachedNet.describe` says so. The module itself is
    left as it is: code, weights, state dict, modes; only its roots are of a class derived from theirs, of which copies
    and files know nothing, and convolutions that torch's CPU library gets wrong of one of `dhm.onednn`. Weights that
    the module makes of others in every pass (pruning, weight normalisation) are plain ones in a branch. No root may lie
    within what is recomputed by `use_reentrant=True`, where no gradient passes it. Make the optimizer afterwards, so
    that it holds the branches. A network that has been trained forgets unless the branches' influence on it grows from
    nothing: `AttachedNet.influence` and the loss's `mimic_scale`.

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
        InputError: no such module, or the network cannot be branched there or at all, or has branches already; the
            sentence says where it stopped and what to pass instead.
    """
    _check_kinds(module, at, branches, image_size, example, seed)
    if any(isinstance(part, BranchingNet) for part in module.modules()):
        raise InputError("the network has branches already; attach to its main_only() to grow others")
    if isinstance(module, torch.jit.ScriptModule):
        name = type(module).__name__
        raise InputError(f"{name} is TorchScript, which runs as a whole; attach to the network it was made of")
    if at is not None and branches is not None:
        raise InputError("give either at=[roots] or branches={name: root}, not both")
    if not isinstance(width, Real) or not 0 < width < math.inf:
        raise InputError(f"width must be positive, not {width!r}")
    if at is not None and (not at or len(set(at)) < len(at)):
        raise InputError(f"at must be a list of different module names, not {at!r}")
    for branch in (branches or {}).values():
        _check_branch(module, branch)
    for root in at or ():
        _check_branch(module, root)
    if branches is not None and not any(isinstance(branch, str) for branch in branches.values()):
        return AttachedNet(module, cast(Mapping[str, tuple[str, nn.Module]], branches))
    traced = trace(module, image_size, example)
    if branches is None:
        roots = sorted(at, key=lambda root: -_position(traced, root)) if at is not None else designed_roots(traced)
        branches = {f"B{number}": root for number, root in enumerate(roots, start=1)}
    return AttachedNet(module, _grow_all(module, traced, branches, width, seed))


def _check_kinds(module: Any, at: Any, branches: Any, image_size: Any, example: Any, seed: Any) -> None:
    """See that arguments are of the kinds `attach` names."""
    if not isinstance(module, nn.Module):
        raise InputError(f"module must be a network, an nn.Module, not {module!r}")
    if at is not None and (isinstance(at, str) or not isinstance(at, Collection)):
        raise InputError(f"at must be a list of different module names, not {at!r}")
    if branches is not None and not isinstance(branches, Mapping):
        raise InputError(f"branches must be roots by the names of branches, {{name: root}}, not {branches!r}")
    if image_size is not None and not (isinstance(image_size, Integral) and int(image_size) > 0):
        raise InputError(f"image_size must be the pixels of a side, a whole number, not {image_size!r}")
    if example is not None and not isinstance(example, torch.Tensor):
        raise InputError(f"example must be a batch of images (N, C, H, W), a tensor, not a {type(example).__name__}")
    if seed is not None and not isinstance(seed, Integral):
        raise InputError(f"seed must be a whole number, not {seed!r}")


def designed_roots(traced: Trace) -> list[str]:
    """Roots of B1 and B2: the ends of the last stage but one and of the stage before that, if there is one.

    Raises:
        InputError: the network has a single stage, or gradients stop inside.
    """
    if traced.cut_off:
        where = cut_off(f"at {traced.cut_off}")
        raise InputError(f"{type(traced.net).__name__} cannot be branched automatically: {where}")
    if len(traced.levels) < 2:
        raise _no_stages(traced)
    return traced.levels[-2::-1][:2]


def _no_stages(traced: Trace) -> InputError:
    ends, image = traced.levels, "x".join(map(str, traced.image))
    return InputError(
        f"{type(traced.net).__name__} cannot be branched automatically: on an image of {image} it has "
        f"{f'a single stage, up to {ends[0]}' if ends else 'no stage'}, a stage being what runs at one resolution on "
        f"the way of everything; pass {'at=[names of root modules] or ' if ends else ''}{BY_HAND}"
    )


def _grow_all(
    module: nn.Module, traced: Trace, branches: Mapping[str, Branch], width: float, seed: int | None
) -> dict[str, tuple[str, nn.Module]]:
    """Hand-written branches as they are and the others grown, the deepest first."""
    if not traced.levels:
        raise _no_stages(traced)
    rng = None if seed is None else generator(seed)
    roots = {name: branch if isinstance(branch, str) else branch[0] for name, branch in branches.items()}
    order = sorted(branches, key=lambda name: -_position(traced, roots[name], grown=isinstance(branches[name], str)))
    deepest = roots[order[0]]
    built: dict[str, tuple[str, nn.Module]] = {}
    for name in order:
        branch, root = branches[name], roots[name]
        if not isinstance(branch, str):
            built[name] = branch
        else:
            built[name] = root, grow(module, traced, root, width if root == deepest else 1.0, root != deepest, rng)
    return built


def _check_branch(module: nn.Module, branch: Branch) -> None:
    if not isinstance(branch, str) and not (
        isinstance(branch, tuple) and len(branch) == 2 and isinstance(branch[1], nn.Module)
    ):
        raise InputError(f"a branch must be a root's name or (root, module), not {branch!r}")
    root = branch if isinstance(branch, str) else branch[0]
    names = [name for name, _ in module.named_modules() if name]
    if root not in names:
        near = difflib.get_close_matches(str(root), names, n=1, cutoff=0.0)
        told = f"the nearest name is {near[0]!r}" if near else "it has none at all"
        raise InputError(f"{type(module).__name__} has no module {root!r}; {told}")


def _position(traced: Trace, root: str, grown: bool = True) -> int:
    """When the root is done in a pass.

    Raises:
        InputError: no branch can root there, or none can be grown from there.
    """
    call = traced.calls.get(root)
    fit = [name for name in traced.spine if traced.calls[name].map_size is not None]
    if call is None or call.times != 1:
        raise InputError(f"no branch can root at {root}: it runs {call.times if call else 0} times in a pass, not once")
    if not grown:
        return call.end
    if call.map_size is None:
        raise InputError(
            f"no branch can be grown from {root}: it gives no map (N, C, H, W); take an earlier module or {BY_HAND}"
        )
    if root in traced.cut:
        raise InputError(f"no branch can be grown from {root}: {cut_off('there')}")
    if root not in traced.spine:
        later = min((n for n in fit if traced.calls[n].end > call.end), key=lambda n: traced.calls[n].end, default=None)
        raise InputError(
            f"no branch can be grown from {root}: parts of the network go around it"
            + (f"; the next module that everything passes through is {later!r}" if later else "")
        )
    return call.end
