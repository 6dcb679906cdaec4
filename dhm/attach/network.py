"""Any network with side branches: it trains with them and answers without them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.utils._pytree import tree_map

from dhm.attach.shapes import check_answer, first_tensor
from dhm.branches import MAIN, BranchingNet
from dhm.errors import InputError


class AttachedNet(BranchingNet[nn.Module, str]):
    """A user's own network with side branches; `attach` builds it. It is used as a `BranchedNet` is.

    The network's code, weights and state dict are its own. For the length of one training pass the roots are of a class
    that keeps a copy of their output for the branches; a copy, so neither side's in-place operations reach the other.

    Args:
        backbone: the user's module.
        branches: name -> (name of the root module, module from the root's output to logits), the deepest first.
    """

    def __init__(self, backbone: nn.Module, branches: Mapping[str, tuple[str, nn.Module]]) -> None:
        super().__init__(backbone, branches)
        self.training = backbone.training  # the network keeps the modes it came with, and its branches take its own
        _set_mode(self.branches, backbone.training)

    def all_logits(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, C, H, W) -> logits (N, K) of every classifier, in either mode.

        Raises:
            InputError: a root did not run or gives no tensor, or a classifier's answer is not of the shape (N, K).
        """
        with _heard(self.backbone, self.roots) as inner:
            logits = {MAIN: self.backbone(x)}
        check_answer(logits[MAIN])
        for name, root in self.roots.items():
            if name not in inner:
                raise InputError(f"branch {name}: its root {root} gave no tensor in this pass")
            branch = self.branches[name]
            logits[name] = branch(inner[name], x.shape[1:]) if isinstance(branch, Tail) else branch(inner[name])
            if logits[name].shape != logits[MAIN].shape:
                raise InputError(
                    f"branch {name} answers with the shape {tuple(logits[name].shape)}, the network itself with "
                    f"{tuple(logits[MAIN].shape)}: both must be logits (N, classes)"
                )
        return logits

    def describe(self) -> str:
        """A table of the classifiers: root, width and blocks of the last stage beside the trunk's, parameters."""
        rows = [("", "root", "width", "last stage", "parameters", "")]
        for name, group in self.parameter_groups().items():
            grown = self.branches[name] if name != MAIN else None
            known = (grown.width_text, grown.blocks_text) if isinstance(grown, Tail) else ("", "")
            note = grown.note if isinstance(grown, Tail) else "your network" if name == MAIN else "hand-written"
            rows.append((name, self.roots.get(name, ""), *known, f"{sum(p.numel() for p in group):,}", note))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column == 4 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def _set_mode(module: nn.Module, training: bool) -> None:
    """Set the mode of all modules, past any `train` of their own."""
    for part in module.modules():
        part.training = training


class Heard(nn.Module):
    """Mixed into the class of a root: a call leaves a copy of its output for every branch that starts here.

    A class and no hook, since compiled code is used for every module of a class that it was compiled for, whatever its
    hooks.
    """

    ears: list[tuple[dict[str, torch.Tensor], str]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = super().__call__(*args, **kwargs)
        if isinstance(output, torch.Tensor):
            for inner, name in self.ears:
                inner[name] = output.clone()
        return output


_HEARD: dict[type[nn.Module], type[nn.Module]] = {}
"""A class that is heard, for every class; always the same, since compiled code depends on it."""


@contextmanager
def _heard(net: nn.Module, roots: Mapping[str, str]) -> Iterator[dict[str, torch.Tensor]]:
    """What roots put out meanwhile, by branch."""
    inner: dict[str, torch.Tensor] = {}
    kinds: dict[nn.Module, type[nn.Module]] = {}
    try:
        for root in set(roots.values()):
            module = net.get_submodule(root)
            kind = kinds[module] = type(module)
            vars(module)["ears"] = [(inner, name) for name in roots if roots[name] == root]
            module.__class__ = _HEARD.setdefault(kind, type(kind.__name__, (Heard, kind), {}))
        yield inner
    finally:
        for module, kind in kinds.items():
            module.__class__ = kind
            del vars(module)["ears"]


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
        _set_mode(self, mode)
        return self

    @property
    def width_text(self) -> str:
        return f"x {self.width:.3g}"

    @property
    def blocks_text(self) -> str:
        kept, of = self.blocks
        return f"{kept} of {of} blocks" if of else ""

    def forward(self, representation: torch.Tensor, image: Sequence[int] = ()) -> torch.Tensor:
        """The root's output (N, C, H, W) -> logits (N, K).

        Args:
            image: shape of the images it comes from, (C, H, W), for code that asks for it; by default the traced one.
        """
        entrance = cast(Entrance, self.net.get_submodule(self.root))
        entrance.held = representation
        try:
            batch = 0 if self.empty else len(representation)
            logits: torch.Tensor = self.net(representation.new_empty((batch, *(image or self.image))))
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

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        given = first_tensor((args, kwargs))
        return None if given is None else given.clone()


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
