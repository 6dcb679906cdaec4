"""Branches grown from a network: the network's own code entered at the root, and what stands in for the rest."""

from typing import Any, cast

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from dhm.attach.shapes import first_tensor


def set_all_modes(module: nn.Module, training: bool) -> None:
    """Set the mode of all modules, past any `train` of their own."""
    for part in module.modules():
        part.training = training


class Tail(nn.Module):
    """A branch grown from a network: the network's own code, entered at the root.

    It holds a copy of the network in which the root gives the representation it is handed, and an empty stand-in takes
    the place of whatever runs before it. The copy keeps the network's module names.

    Args:
        net: the copy, with an `Entrance` at `root`.
        root: name of the root.
        image: shape of an image, (C, H, W).
        width: how many times wider than the network's its last stage is.
        blocks: blocks of its last stage, and of the network's after the root.
        empty: whether the network's code before the root runs on an empty batch, which costs least; some code needs the
            number of images.
        note: where it departs from what was asked.
    """

    def __init__(
        self, net: nn.Module, root: str, image: tuple[int, ...], width: float = 1.0,
        blocks: tuple[int, int] = (0, 0), empty: bool = True, note: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.root, self.image = net, root, image
        self.width, self.blocks, self.empty, self.note = width, blocks, empty, note

    def train(self, mode: bool = True) -> "Tail":
        """The mode of all modules; a `train` of the network's own may speak of modules that are not here."""
        set_all_modes(self, mode)
        return self

    @property
    def width_text(self) -> str:
        return f"x {self.width:.3g}"

    @property
    def blocks_text(self) -> str:
        kept, of = self.blocks
        return f"{kept} of {of} blocks" if of else ""

    def forward(self, representation: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The root's output (N, C, H, W) -> logits (N, K).

        Args:
            args, kwargs: what the network was called with, for its code; the images among it, the first tensor, are
                looked at for their shape alone. By default images as they were traced.
        """
        entrance = cast(Entrance, self.net.get_submodule(self.root))
        entrance.held = representation
        if not args and not kwargs:
            args = (representation.new_empty((0, *self.image)),)
        leaves, form = tree_flatten((args, kwargs))
        tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        batch = 0 if self.empty and len(tensors) == 1 else len(representation)  # other tensors are of N images too
        for first in tensors[:1]:
            leaves[first] = representation.new_empty((batch, *leaves[first].shape[1:]))
        given, named = tree_unflatten(leaves, form)
        try:
            logits: torch.Tensor = self.net(*given, **named)
        finally:
            entrance.held = None
        if logits.requires_grad and not torch.compiler.is_compiling():
            # code that recomputes its activations comes by the entrance again, in the backward pass
            logits.register_hook(lambda gradient: setattr(entrance, "held", representation))
            if representation.requires_grad:
                representation.register_hook(lambda gradient: setattr(entrance, "held", None))
        return logits


class StandIn(nn.Module):
    """Takes a module's place in a branch; the network's code still finds what it noted of itself, though no weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        noted = {name: value for name, value in vars(module).items() if not name.startswith("_")}
        vars(self).update({name: value for name, value in noted.items() if not isinstance(value, torch.Tensor)})


class Entrance(StandIn):
    """Stands where the root stood and gives the representation it holds."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.held: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "held": None}

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        return self.held


class LeftOut(StandIn):
    """Stands for a block that a shorter branch does without.

    It gives a copy, as a block would: what follows may work in place on a tensor that what came before still needs.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


class Passed(StandIn):
    """Stands for a module before the root: no weights, and tensors without content of the shape it would give.

    So the network's own code runs up to the root at no cost, whatever it does between its modules.
    """

    def __init__(self, module: nn.Module, output: Any) -> None:
        super().__init__(module)
        self.shapes = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = first_tensor((args, kwargs))
        batch, device = (0, None) if given is None else (len(given), given.device)

        def empty(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            return torch.empty((batch, *leaf.shape[1:]), dtype=leaf.dtype, device=device)

        return tree_map(empty, self.shapes)
