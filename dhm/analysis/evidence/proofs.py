"""Claims that need no training: computed from the networks and the formulas, in seconds."""

from collections.abc import Callable, Mapping

import torch

from dhm.analysis.theory import eq11, smooth
from dhm.branches import MAIN
from dhm.flops import flops, inference_flops
from dhm.zoo import create_model, list_models

IMAGE_SIZE = 64
SIGMAS = (0.02, 0.03, 0.045, 0.07, 0.1)
HIGHER = 2.5
"""Exponent of sigma above which a remainder is of higher order than sigma^2."""


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


def expansion() -> tuple[str, str]:
    """Whether what Eq. 11 leaves out falls faster with sigma than the term it keeps, for two smooth heads.

    Returns:
        what was found, and a word for it.
    """
    course = smooth.course("value", 0, 1, SIGMAS)
    order = eq11.slope(SIGMAS, course.missed("printed"))
    return f"what is left out falls like σ^{order:.2f}, the kept term like σ^2", _word(order > HIGHER)


def _word(holds: bool) -> str:
    return "holds" if holds else "does not hold"


PROOFS: Mapping[str, Callable[[], tuple[str, str]]] = {"inference": inference, "expansion": expansion}
"""By the kind of the claim."""
