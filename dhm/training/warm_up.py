"""Branches learn first: on a trained network, before training them together (section 4.2)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dhm.branches import BranchingNet, answering
from dhm.errors import InputError, NonFiniteLoss
from dhm.losses import DHMLoss
from dhm.training.progress import Bar

Batch = tuple[torch.Tensor, torch.Tensor]


def warm_up_branches(
    net: BranchingNet[Any, Any],
    batches: Iterable[Batch],
    steps: int = 300,
    *,
    loss: nn.Module | None = None,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    progress: bool = True,
) -> list[float]:
    """Train the side branches of a trained network alone, so that they have something to teach when training begins.

    Freshly drawn branches teach a trained network noise, and it forgets within a few steps. Section 4.2 of the paper
    lets new layers learn in advance with the others fixed, and so does this: B0's layers are in eval mode, and the
    branches learn from the labels, from B0 and from each other. Of B0 and the trunk no weight, statistic or gradient
    changes; nor do the modes and `requires_grad` of any module, whether it ends, fails or is stopped. Afterwards let
    what branches do to the network grow from nothing, by `net.influence` and the loss's `mimic_scale`. Call it before
    `net` is compiled or wrapped for several devices.

    Args:
        net: what `dhm.attach` or `dhm.create_model` gives, on its device.
        batches: images (N, C, H, W) with class indices (N,) or probabilities (N, K), as for `loss`; begun anew whenever
            they end. They are moved to the network's device.
        steps: updates.
        loss: what the branches minimise, `DHMLoss()` by default; it is called with the logits of all classifiers.
        optimizer: makes an optimizer of the branches' parameters, Adam at a rate of 0.001 by default.
        progress: show a bar.

    Returns:
        The loss before each update, with B0's constant part.

    Raises:
        InputError: no such network, or no branch or parameter that could learn; no batches, a batch of another form, or
            an iterator that ends too soon.
        NonFiniteLoss: the loss became NaN or infinite.
    """
    if not isinstance(net, BranchingNet):
        raise InputError(
            f"branches are warmed up on what dhm.attach gives, before it is compiled or wrapped, not on a "
            f"{type(net).__name__}"
        )
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise InputError(f"steps must be a whole number of at least 1, not {steps!r}")
    held = {*net.backbone.parameters()}  # a hand-written branch may share some of them
    learning = [
        parameter for parameter in net.branches.parameters() if parameter.requires_grad and parameter not in held
    ]
    if not learning:
        raise InputError("there is nothing to warm up: no branch has a parameter that requires a gradient")
    if not isinstance(batches, Iterable):
        raise InputError(f"batches must be an iterable of (images, target), not of type {type(batches).__name__}")
    device, seen = learning[0].device, []
    objective = DHMLoss() if loss is None else loss
    updater = torch.optim.Adam(learning, lr=1e-3) if optimizer is None else optimizer(learning)
    with _held(net), torch.enable_grad(), Bar("branches learn first", steps, "step", shown=progress) as bar:
        for images, target in _endless(batches, steps):
            told = objective(net.all_logits(images.to(device)), target.to(device))
            total = told[0] if isinstance(told, tuple) else told
            if not total.requires_grad:
                raise InputError(f"the loss reaches no branch: it must be over all of {', '.join(net.heads)}")
            seen.append(total.item())
            if not total.isfinite():
                raise NonFiniteLoss(f"the loss became {seen[-1]} at step {len(seen)} of the branches' warm-up")
            updater.zero_grad()
            total.backward()
            updater.step()
            torch.clear_autocast_cache()  # where all of this runs under autocast, it would keep the old weights
            bar.advance(f"loss {seen[-1]:.2f}")
        updater.zero_grad()
    return seen


@contextmanager
def _held(net: BranchingNet[Any, Any]) -> Iterator[None]:
    """Branches in training mode and everything else fixed; afterwards modes and flags are as they were."""
    fixed = [parameter for parameter in net.backbone.parameters() if parameter.requires_grad]
    with answering(net):
        try:
            net.branches.train()
            net.backbone.eval()  # what a branch shares with it as well
            net.backbone.training = True  # some networks answer with logits in training mode alone
            for parameter in fixed:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in fixed:
                parameter.requires_grad_(True)


def _endless(batches: Iterable[Batch], steps: int) -> Iterator[Batch]:
    """So many batches, begun anew whenever they end."""
    done = 0
    while done < steps:
        before = done
        for batch in batches:
            if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(map(torch.is_tensor, batch)):
                raise InputError(f"batches must give (images, target) in tensors, not a {type(batch).__name__}")
            yield batch[0], batch[1]
            done += 1
            if done == steps:
                return
        if done == before:
            raise InputError(
                f"batches ended after {done} of {steps} steps and cannot be begun anew: pass a DataLoader or another "
                "iterable that can"
            )
