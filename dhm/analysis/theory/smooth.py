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
PLANE = Isotropic((2,))
AXES = PLANE.directions(2, generator(0))
POINTS = torch.randn(3, 2, generator=generator(2), dtype=torch.float64)
"""The two directions of the plane, and three points on it."""


def smooth_head(seed: int) -> eq11.Head:
    """A small network with tanh and softmax, points of the plane (N, 2) -> class probabilities (N, 3)."""
    rng = generator(seed)
    w, b, v = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((2, 8), (8,), (8, 3)))
    return lambda h: ((h @ w + b).tanh() @ v).softmax(dim=-1)


@dataclass(frozen=True)
class Course:
    """A quantity's expectation over the size of the noise, beside its expansion.

    Attributes:
        sigmas: sizes of the noise, S of them.
        truth: (S, N, K) or (S, N, 2), by Gauss-Hermite quadrature.
        terms: of its expansion, at unit sigma.
    """

    sigmas: tuple[float, ...]
    truth: torch.Tensor
    terms: torch.Tensor

    def expanded(self, kind: str) -> torch.Tensor:
        """The expansion of a kind at every sigma, in the shape of `truth`."""
        return torch.stack([eq11.KINDS[kind](self.terms, sigma) for sigma in self.sigmas])

    def missed(self, kind: str) -> list[float]:
        """The distance of an expansion from the truth at every sigma."""
        return (self.truth - self.expanded(kind)).flatten(1).norm(dim=1).tolist()

    def along_start(self, values: torch.Tensor) -> list[float]:
        """(S, N, ...) as one number a sigma: its part along what the quantity is without noise, over that length."""
        start = self.terms[0]
        return ((values * start).flatten(1).sum(dim=1) / start.square().sum()).tolist()


def course(quantity: str, student: int, teacher: int, sigmas: Sequence[float]) -> Course:
    """The course of a quantity of two smooth classifiers under isotropic noise at `POINTS`.

    Args:
        quantity: a name of `QUANTITIES`.
        student, teacher: seeds of `smooth_head`.

    Raises:
        InputError: there is no such quantity.
    """
    if quantity not in QUANTITIES:
        raise InputError(f"the quantity must be one of {', '.join(QUANTITIES)}, not {quantity!r}")
    exact, expand = (partial(f, smooth_head(student), smooth_head(teacher), POINTS) for f in QUANTITIES[quantity])
    return Course(tuple(sigmas), torch.stack([quadrature(exact, sigma) for sigma in sigmas]), expand(AXES))


def residuals(student: int, teacher: int, sigmas: Sequence[float]) -> dict[str, dict[str, tuple[list[float], float]]]:
    """Quantity -> kind of expansion -> its distance from the truth at every sigma, and the slope fitted to it."""
    courses = {quantity: course(quantity, student, teacher, sigmas) for quantity in QUANTITIES}
    return {
        quantity: {kind: (found.missed(kind), eq11.slope(sigmas, found.missed(kind))) for kind in eq11.KINDS}
        for quantity, found in courses.items()
    }


def sampling_errors(student: int, teacher: int, sigma: float, pairs: int) -> torch.Tensor:
    """How far sampling lies from quadrature in its own standard errors, (N, K): about standard normal if it is right.

    Args:
        pairs: antithetic pairs, see `monte_carlo`.
    """
    value = partial(eq11.mimicking, smooth_head(student), smooth_head(teacher), POINTS)
    sampled, error = monte_carlo(value, PLANE, len(POINTS), sigma, pairs, generator(3))
    return (sampled - quadrature(value, sigma)) / error


def where_they_agree(student: int, teacher: int, sigmas: Sequence[float]) -> tuple[list[float], float]:
    """E KL / sigma^2 at every sigma for two heads of which the teacher is shifted to agree with the student at
    `POINTS`, and the penalty it should tend to (`eq11.inconsistency`); means over the points."""
    first = smooth_head(student)
    heads = first, eq11.agreeing(smooth_head(teacher), first, POINTS)
    divergence = partial(eq11.divergence, *heads, POINTS)
    ratios = [float(quadrature(divergence, sigma).mean()) / sigma**2 for sigma in sigmas]
    return ratios, float(eq11.inconsistency(*heads, POINTS, AXES).mean())
