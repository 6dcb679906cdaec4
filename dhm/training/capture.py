"""How network and loss run in a training step: eager, or captured. This is the one place that decides it.

A step of these networks asks a GPU for some 2,000 kernels one by one, and the asking takes longer than the work.
Captured, the network with its loss is one graph and their backward pass another, made by `torch.compile` and on a GPU
recorded as CUDA graphs, each replayed by one call; no loop over classifiers is left in them. Gradients are summed over
devices, and weights updated, outside.

What changes from step to step comes in as tensors: images, labels, and what every pair of classifiers counts, so that
neither a draw of branches nor a schedule is a reason to compile again. Within a graph nothing is read back or copied
from the host. Dropout draws what it draws in an eager step; augmentation is drawn on the host before it, as ever.
"""

import random
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import nn

from dhm.branches import BranchedNet
from dhm.errors import InputError
from dhm.losses import DHMLoss

Figures = dict[str, torch.Tensor]


class Objective(nn.Module):
    """Network and loss as one function of a shard of images: a module, for Fabric to wrap.

    Args:
        net, loss: what runs.
        captured: number of images of the shards that run captured, all others eager, so that nothing is compiled for a
            second size; None: all eager.
        device: where it runs.

    Raises:
        InputError: nothing can be compiled here.
    """

    def __init__(self, net: BranchedNet, loss: DHMLoss, captured: int | None, device: torch.device) -> None:
        super().__init__()
        self.net, self.loss, self.captured = net, loss, captured
        if captured is not None:
            torch.compiler.reset()  # what earlier trainings of this process compiled, with its memory on a GPU
            _see_compiler(device)
            self._graph = compiled(self._run, device)

    def forward(
        self, images: torch.Tensor, labels: torch.Tensor, mimicking: Collection[str] | None
    ) -> tuple[torch.Tensor, Figures]:
        """The loss of a shard, and without gradient the loss, its terms and each classifier's share of right answers.

        Args:
            images, labels: (N, 3, H, W), (N,).
            mimicking: branches that take part in the mimicking, None for all.
        """
        if len(images) != self.captured:
            return self._run(images, labels, mimicking)
        heads, weights = self.net.heads, None
        if self.loss.method == "dhm":
            weights = self.loss.pair_weights(heads, next(self.net.parameters()), mimicking)
        total, figures = self._graph(images, labels, None, weights)
        told = torch.stack([*figures.values()])  # the next replay writes over the graph's own
        mimic = self.loss.pairs(heads, mimicking)
        return total, {
            name: value for name, value in zip(figures, told.unbind(), strict=True)
            if not name.startswith("kl/") or name.removeprefix("kl/") in mimic
        }  # fmt: skip

    def _run(
        self, images: torch.Tensor, labels: torch.Tensor, mimicking: Collection[str] | None,
        pair_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Figures]:  # fmt: skip
        logits = self.net(images)
        total, terms = self.loss(logits, labels, mimicking, pair_weights)
        right = {f"accuracy/{head}": (z.detach().argmax(dim=1) == labels).float().mean() for head, z in logits.items()}
        return total, {"loss": total.detach(), **terms, **right}


def own_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gradients of zero in memory of their own, for a captured step of several shards to add to: those of the first
    would lie in the graph's memory, which the second writes over."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """A function as one graph, of the same bits each time it is compiled: on a GPU a CUDA graph, on a CPU one file of
    C++, which is compiled several times as fast as a file for every loop."""
    how: dict[str, Any] = {"triton.cudagraphs": True} if device.type == "cuda" else {"cpp_wrapper": True}
    options = {**how, "fallback_random": True, "deterministic": True}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def _see_compiler(device: torch.device) -> None:
    """Compile a line that lies in no cache.

    Raises:
        InputError: it cannot be.
    """
    number = random.SystemRandom().random()
    try:
        torch.compile(lambda x: x * number, fullgraph=True, dynamic=False)(torch.ones(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        raise InputError(
            "a step cannot be compiled here: torch.compile needs a C++ compiler, and Triton for a GPU "
            f"({str(error).partition(chr(10))[0]})"
        ) from None
