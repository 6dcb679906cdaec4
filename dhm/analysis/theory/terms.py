"""The loss taken apart: what each of its terms is, and the gradient it sends to each classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from dhm.errors import InputError
from dhm.losses import DHMLoss


@dataclass(frozen=True)
class Term:
    """One term of the loss of one image.

    Attributes:
        name: as `dhm.DHMLoss` calls it, "ce/B0" or "kl/B0<-B1".
        value: in nats.
        gradients: classifier -> derivative of the term by each of its logits; exact zeros where none is sent.
    """

    name: str
    value: float
    gradients: dict[str, tuple[float, ...]]

    @property
    def spoken(self) -> str:
        """The term as tables and figures print it: "CE B0", "KL B0 ← B1"."""
        kind, _, heads = self.name.partition("/")
        return f"{kind.upper()} {heads.replace('<-', ' ← ')}"


def dissect(
    logits: Mapping[str, Sequence[float]], target: int, method: str = "dhm", direction: str = "both",
    temperature: float = 1.0,
) -> list[Term]:  # fmt: skip
    """Every term of `dhm.DHMLoss` for one image, each differentiated on its own: all weights but its own are zero.

    Args:
        logits: classifier -> its logits, the deepest first.
        target: the true class, counted from 0.
        method, direction, temperature: see `dhm.DHMLoss`.

    Raises:
        InputError: there is no such class, or a choice the loss does not know.
    """
    classes = len(next(iter(logits.values())))
    if not 0 <= target < classes:
        raise InputError(f"target must be a class from 0 to {classes - 1}, not {target}")
    label = torch.tensor([target])
    options: dict[str, Any] = {"method": method, "direction": direction, "temperature": temperature}
    leaves = {head: torch.tensor([list(z)], dtype=torch.float64, requires_grad=True) for head, z in logits.items()}
    _, values = DHMLoss(**options)(leaves, label)
    pairs = [f"{q}<-{p}" for q in leaves for p in leaves if p != q]
    found = []
    for name, value in values.items():
        loss = DHMLoss(
            **options,
            ce_weights={head: float(name == f"ce/{head}") for head in leaves},
            mimic_weights={pair: float(name == f"kl/{pair}") for pair in pairs},
        )
        total, _ = loss(leaves, label)
        sent = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
        gradients = {head: tuple(g[0].tolist()) for head, g in zip(leaves, sent, strict=True)}
        found.append(Term(name, float(value), gradients))
    return found


def frame(terms: Sequence[Term]) -> pd.DataFrame:
    """A row a term and one for their sum: its value, and the length of the gradient it sends to each classifier.

    A gradient that is nothing to the last bit is printed as "0".
    """
    gradients = {head: torch.tensor([term.gradients[head] for term in terms]) for head in terms[0].gradients}
    values = [term.value for term in terms]
    sent = {
        f"gradient to {head}": [*g.norm(dim=1).tolist(), float(g.sum(dim=0).norm())] for head, g in gradients.items()
    }
    table = pd.DataFrame({"value": [*values, sum(values)], **sent}, [*(term.spoken for term in terms), "sum"])
    return table.map(lambda number: f"{number:.3f}" if number else "0")
