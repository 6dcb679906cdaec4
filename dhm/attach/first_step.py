"""The first step of an optimizer, which has to move the branches with the network."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from dhm.branches import MAIN


class FirstStep:
    """Watches parameters from one training pass to the next, until a step has moved them.

    Told is that branches with gradients stayed as they were while the network moved. Passes whose gradients are summed,
    steps that a scaler skips and frozen branches are none of that.

    Attributes:
        taught: branches that a backward pass has reached since they moved last.
    """

    def __init__(self) -> None:
        self.awaited = True
        self.taught: set[str] = set()
        self._before: dict[str, int] = {}

    def look(self, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        """Compare parameters by owner with those of the pass before.

        Warns:
            UserWarning: an optimizer lacks a branch.
        """
        now = {
            owner: sum(p._version for p in group if not (is_lazy(p) or p.is_inference()))
            for owner, group in groups.items()
        }
        moved = {owner for owner in now if now[owner] != self._before.get(owner, now[owner])}
        left = sorted(self.taught - moved)
        if MAIN in moved and self.taught:
            self.awaited = False
            if left:
                warnings.warn(
                    f"a step has moved the network and left {', '.join(left)} as they were, which had gradients: make "
                    "the optimizer after attach, of net.parameters(), so that it holds the branches too",
                    stacklevel=2,
                )
        self.taught -= moved
        self._before = now

    def follow(self, logits: Mapping[str, torch.Tensor], groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        """Note which branches the backward pass of these logits reaches."""
        for name, z in logits.items():
            if name != MAIN and z.requires_grad and any(p.requires_grad for p in groups[name]):
                z.register_hook(lambda gradient, name=name: self.taught.add(name))
