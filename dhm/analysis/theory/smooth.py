"""Smooth classifiers: on a plane, the expectation behind Eq. 11 is known to the last digits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from dhm.analysis.theory import eq11
from dhm.analysis.theory.perturbation import Isotropic, monte_carlo, quadrature
from dhm.errors import InputError
from dhm.randomness import generator

QUANTITIES: dict[str, tuple[Callable, Callable]] = {
    "value": (eq11.mimicking, eq11.expand_value),
    "student's gradient": (eq11.student_gradient, eq11.expand_gradient),
}
"""What is expanded: its value at perturbations, and its expansion."""
KINDS = ("printed", "full")
"""Eq. 11 as it is printed, and all terms of second order."""
AXES = Isotropic((2,)).directions(2, generator(0))
"""The two directions of the plane."""


def smooth_head(seed: int, features: int = 2, classes: int = 3) -> eq11.Head:
    """A small network with tanh and softmax, representations (N, features) -> class probabilities (N, classes).

    First weights shrink as features grow in number, so that tanh stays as far from its ends.
    """
    shapes, rng = ((features, 8), (8,), (8, classes)), generator(seed)
    w, b, v = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in shapes)
    return lambda h: ((h @ w * (2 / features) ** 0.5 + b).tanh() @ v).softmax(dim=-1)


@dataclass(frozen=True)
class Course:
    """A quantity's expectation over the size of the noise, beside its expansion.

    Attributes:
        sigmas: sizes of the noise, S of them.
        truth: (S, N, K) or (S, N, 2), by Gauss-Hermite quadrature.
        expansion: the terms at unit sigma.
    """

    sigmas: tuple[float, ...]
    truth: torch.Tensor
    expansion: eq11.Expansion

    def expanded(self, kind: str) -> torch.Tensor:
        """The expansion of a kind at every sigma, in the shape of `truth`."""
        return torch.stack([getattr(self.expansion, kind)(sigma) for sigma in self.sigmas])

    def missed(self, kind: str) -> list[float]:
        """The distance of an expansion from the truth at every sigma."""
        return (self.truth - self.expanded(kind)).flatten(1).norm(dim=1).tolist()

    def along_start(self, values: torch.Tensor) -> list[float]:
        """(S, N, ...) as one number a sigma: its part along what the quantity is without noise, over that length."""
        start = self.expansion.terms[0]
        return ((values * start).flatten(1).sum(dim=1) / start.square().sum()).tolist()


def course(quantity: str, student: int, teacher: int, sigmas: Sequence[float], points: int = 3) -> Course:
    """The course of a quantity of two smooth classifiers under isotropic noise on three points of the plane.

    Args:
        quantity: a name of `QUANTITIES`.
        student, teacher: seeds of `smooth_head`.

    Raises:
        InputError: there is no such quantity.
    """
    if quantity not in QUANTITIES:
        raise InputError(f"the quantity must be one of {', '.join(QUANTITIES)}, not {quantity!r}")
    exact, expand = QUANTITIES[quantity]
    heads, h = (smooth_head(student), smooth_head(teacher)), _plane(points)
    truth = torch.stack([quadrature(lambda xi: exact(*heads, h, xi), 2, sigma) for sigma in sigmas])
    return Course(tuple(sigmas), truth, expand(*heads, h, AXES))


def residuals(student: int, teacher: int, sigmas: Sequence[float]) -> dict[str, dict[str, tuple[list[float], float]]]:
    """Quantity -> kind of expansion -> its distance from the truth at every sigma, and the slope fitted to it."""
    courses = {quantity: course(quantity, student, teacher, sigmas) for quantity in QUANTITIES}
    return {
        quantity: {kind: (found.missed(kind), eq11.slope(sigmas, found.missed(kind))) for kind in KINDS}
        for quantity, found in courses.items()
    }


def sampling_errors(student: int, teacher: int, sigma: float, pairs: int, points: int = 3) -> torch.Tensor:
    """How far sampling lies from quadrature in its own standard errors, (N, K): about standard normal if it is right.

    Args:
        pairs: antithetic pairs, see `monte_carlo`.
    """
    heads, h = (smooth_head(student), smooth_head(teacher)), _plane(points)
    value = partial(eq11.mimicking, *heads, h)
    sampled, error = monte_carlo(value, Isotropic((2,)), points, sigma, pairs, generator(3))
    return (sampled - quadrature(value, 2, sigma)) / error


def where_they_agree(student: int, teacher: int, sigmas: Sequence[float], points: int = 3) -> tuple[list[float], float]:
    """E KL / sigma^2 at every sigma for two heads of which the teacher is shifted to agree with the student at the
    points, and the penalty it should tend to (`eq11.inconsistency`); means over the points."""
    h, first = _plane(points), smooth_head(student)
    second = eq11.agreeing(smooth_head(teacher), first, h)
    found = [float(quadrature(lambda xi: eq11.divergence(first, second, h, xi), 2, sigma).mean()) for sigma in sigmas]
    penalty = float(eq11.inconsistency(first, second, h, AXES).mean())
    return [value / sigma**2 for value, sigma in zip(found, sigmas, strict=True)], penalty


def _plane(points: int) -> torch.Tensor:
    return torch.randn(points, 2, generator=generator(2), dtype=torch.float64)
