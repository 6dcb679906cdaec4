"""Claims that need no training: computed from the networks and the formulas, in seconds."""

from collections.abc import Callable, Mapping

import torch

from dhm.analysis.eq11 import expand_value
from dhm.analysis.smooth import smooth_head
from dhm.branches import MAIN
from dhm.flops import flops, inference_flops
from dhm.randomness import generator
from dhm.zoo import create_model, list_models

IMAGE_SIZE = 64
LEADING = 0.1
"""Share of a kept term that what is left out may reach before the kept one cannot be called leading."""


def inference() -> tuple[str, str]:
    """Whether every network of the paper answers at the plain network's cost, counted in multiply-adds.

    Returns:
        what was found, and a word for it.
    """
    names = list_models()
    equal = 0
    for name in names:
        with torch.device("meta"):
            net, plain = create_model(name), create_model(name, branches="none")
        counts = [sum(p.numel() for p in part.parameters()) for part in (net.main_only(), plain.main_only())]
        equal += counts[0] == counts[1] and inference_flops(net, IMAGE_SIZE) == flops(plain, IMAGE_SIZE)[MAIN]
    return f"the plain network's multiply-adds and parameters in {equal} of {len(names)}", _word(equal == len(names))


def expansion(points: int = 64, features: int = 8, classes: int = 5) -> tuple[str, str]:
    """Size of what Eq. 11 leaves out at second order beside the term it keeps, for smooth heads drawn at random.

    Returns:
        what was found, and a word for it.
    """
    student, teacher = (smooth_head(seed, features, classes) for seed in (0, 1))
    h = torch.randn(points, features, generator=generator(2), dtype=torch.float64)
    directions = torch.eye(features, dtype=torch.float64)[:, None]
    _, kept, *left_out = expand_value(student, teacher, h, directions).terms.sum(dim=-1)
    ratio = float(torch.stack(left_out).sum(dim=0).abs().mean() / kept.abs().mean())
    return f"what is left out is {ratio:.1f} times the term kept", _word(ratio < LEADING)


def _word(holds: bool) -> str:
    return "holds" if holds else "does not hold"


PROOFS: Mapping[str, Callable[[], tuple[str, str]]] = {"inference": inference, "expansion": expansion}
"""By the kind of the claim."""
