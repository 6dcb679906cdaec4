"""Any network with side branches: it trains with them and answers without them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dhm.attach.first_step import FirstStep
from dhm.attach.hearing import heard, let_be_heard
from dhm.attach.shapes import check_answer
from dhm.attach.shown import Shown
from dhm.attach.tails import Tail, set_all_modes
from dhm.attach.tracing import cut_off
from dhm.branches import MAIN, BranchingNet
from dhm.errors import InputError
from dhm.records import checkpoints
from dhm.records.containers import Content, plain_state


class AttachedNet(Shown, BranchingNet[nn.Module, str]):
    """A user's own network with side branches; `attach` builds it. It is used as a `BranchedNet` is.

    The network's code, weights and state dict are its own. Its roots are of a class that in a training pass of this
    network gives a copy of their output to the branches; a copy, so neither side's in-place operations reach the other.

    Args:
        backbone: the user's module.
        branches: name -> (name of the root module, module from the root's output to logits), the deepest first.
    """

    def __init__(self, backbone: nn.Module, branches: Mapping[str, tuple[str, nn.Module]]) -> None:
        super().__init__(backbone, branches)
        self.training = backbone.training  # the network keeps the modes it came with, and its branches take its own
        set_all_modes(self.branches, backbone.training)
        self._first_step = FirstStep()
        self._listen()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._listen()

    def _listen(self) -> None:
        for root in self.roots.values():
            let_be_heard(self.backbone.get_submodule(root))

    def all_logits(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Logits (N, K) of every classifier, in either mode.

        Args:
            args, kwargs: what the network takes, images (N, C, H, W) first. Grown branches, which are the network's
                code, are given the same.

        Raises:
            InputError: a root did not run or gives no tensor, or no gradient passes it, or a classifier's answer is not
                of the shape (N, K).
        """
        trains = self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        watched = trains and self._first_step.awaited and not hasattr(self, "_is_replica")  # one of DataParallel's
        if watched:
            self._first_step.look(self.parameter_groups())
        with heard(self.backbone, self.roots) as inner:
            logits = {MAIN: self.backbone(*args, **kwargs)}
        check_answer(logits[MAIN])
        for name, root in self.roots.items():
            if name not in inner:
                raise InputError(
                    f"branch {name}: its root {root} gave no tensor in this pass; if the network was changed since, by "
                    "checkpointing, say, attach after that"
                )
            if logits[MAIN].requires_grad and not inner[name].requires_grad:
                self._see_no_cut(name)
            branch = self.branches[name]
            grown = isinstance(branch, Tail)
            representation = self.for_branch(inner[name])
            logits[name] = branch(representation, *args, **kwargs) if grown else branch(representation)
            if logits[name].shape != logits[MAIN].shape:
                raise InputError(
                    f"branch {name} answers with the shape {tuple(logits[name].shape)}, the network itself with "
                    f"{tuple(logits[MAIN].shape)}: both must be logits (N, classes)"
                )
        if watched:
            self._first_step.follow(logits, self.parameter_groups())
        return logits

    def _see_no_cut(self, name: str) -> None:
        root = self.roots[name]
        if any(parameter.requires_grad for parameter in self.backbone.get_submodule(root).parameters()):
            raise InputError(f"branch {name} cannot teach what is before its root: {cut_off(f'at {root}')}")

    def load_plain(self, content: Content, ema: bool = False) -> None:
        """Load the plain network's tensors into B0, from what any program saved; branches stay as they are.

        The other way, the plain network takes an attached one's file by `plain.load_state_dict(dhm.plain_state(file))`.

        Args:
            content, ema: see `dhm.plain_state`.

        Raises:
            InputError: as `dhm.plain_state`, or the tensors are another network's; the sentence names the first.
        """
        self._first_step = FirstStep()  # weights that move without a step
        own = self.backbone.state_dict()
        names = dict(zip(plain_state(own), own, strict=False))  # a network's own names may look like a wrapper's
        state = {names.get(key, key): value for key, value in plain_state(content, ema).items()}
        counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
        where = "the state dict" if isinstance(content, Mapping) else str(content)
        checkpoints.load_into(self.backbone, {**counters, **state}, where, type(self.backbone).__name__)

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
