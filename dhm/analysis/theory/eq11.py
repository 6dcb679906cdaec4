"""Eq. 11: what the mimicking term of Eq. 10 is under a small perturbation, as printed and to full second order.

The term is f(h) = -sum_k phi2_k(h) log phi1_k(h) at the representation h = theta(x): phi1 is the student, phi2 the
teacher. With covariance sigma^2 C, C = sum_j d_j d_j^T, and derivatives along d_j,

    E f(h + xi) = zeroth    -phi2 log phi1
                + sigma^2 [ gradient  -sum_j d_j phi2 . d_j log phi1                  (the term Eq. 11 keeps)
                          + student   -(1/2) phi2 . sum_j d_j^2 log phi1
                          + teacher   -(1/2) log phi1 . sum_j d_j^2 phi2 ]            + O(sigma^4)

for smooth heads and Gaussian xi. In training the teacher is a constant, so what is followed is the student's gradient
E[-phi2(h + xi) . grad log phi1(h + xi)]; its expansion is the gradient of the four terms through phi1 alone.

Where the two agree at h, the three terms and the teacher's entropy complete a square, of which Eq. 11's is the cross
term: E KL(phi2 || phi1) = sigma^2 / 2 sum_k phi_k sum_j (d_j log phi2_k - d_j log phi1_k)^2 + O(sigma^4).
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.func import grad, jacrev, jvp

Head = Callable[[torch.Tensor], torch.Tensor]
"""Representations (N, *shape) -> class probabilities (N, K), every row on its own."""

TERMS = ("zeroth", "gradient", "student", "teacher")
"""The four terms by name, in the order of every table and tensor here."""
ROWS = 256
"""Points times directions that stand in memory together."""


def printed(terms: torch.Tensor, sigma: float) -> torch.Tensor:
    """The right side of Eq. 11, from the four terms at unit sigma."""
    return terms[0] + sigma**2 * terms[1]


def full(terms: torch.Tensor, sigma: float) -> torch.Tensor:
    """The same to full second order."""
    return terms[0] + sigma**2 * terms[1:].sum(dim=0)


KINDS = {"printed": printed, "full": full}


def mimicking(student: Head, teacher: Head, h: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
    """The term at perturbations (M, N or 1, *shape) of points (N, *shape), by class: (M, N, K)."""
    return _on_all(lambda x: -teacher(x) * student(x).log(), h + xi)


def student_gradient(student: Head, teacher: Head, h: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
    """Gradient of the term by the representation with the teacher a constant, (M, N, *shape), summed over classes.

    A single class k is had from a teacher that is zero elsewhere.
    """

    def gradient(x: torch.Tensor) -> torch.Tensor:
        constant = teacher(x)
        return grad(lambda x: -(constant * student(x).log()).sum())(x)

    return _on_all(gradient, h + xi)


def _on_all(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """f, which takes one batch axis, on the two leading axes of x."""
    return f(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def along(f: Head, h: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """f and its first and second derivative at every point, along every direction at once: (J, N, K) each."""
    at, unit = torch.zeros((), dtype=h.dtype), torch.ones((), dtype=h.dtype)

    def first(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return jvp(lambda t: _on_all(f, h + t * directions), (t,), (unit,))  # type: ignore[return-value]

    with warnings.catch_warnings():  # torch loads its rules for jvp through a part of itself that it deprecates
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
        (value, slope), (_, bend) = jvp(first, (at,), (unit,))  # type: ignore[misc]
    return value, slope, bend


def expand_value(student: Head, teacher: Head, h: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """The four terms at unit sigma by class, (4, N, K), from exact derivatives at the points h (N, *shape) along
    directions (J, N or 1, *shape), summed over J.

    On heads with ReLU these are the almost-everywhere derivatives: what kinks add on average is not in them.
    """
    seconds = []
    for some in directions.split(max(1, ROWS // len(h))):
        log1, slope1, bend1 = along(lambda x: student(x).log(), h, some)
        phi2, slope2, bend2 = along(teacher, h, some)
        seconds.append(-torch.stack([slope2 * slope1, phi2 * bend1 / 2, log1 * bend2 / 2]).sum(dim=1))
    return torch.cat([-(phi2 * log1)[:1], torch.stack(seconds).sum(dim=0)])


def expand_gradient(student: Head, teacher: Head, h: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """The same four terms of the student's gradient by the representation, summed over classes: (4, N, *shape)."""
    phi2, slope2, bend2 = along(teacher, h, directions)  # at the fixed h: the teacher is a constant

    def terms(x: torch.Tensor) -> torch.Tensor:
        log1, slope1, bend1 = along(lambda x: student(x).log(), x, directions)
        second = torch.stack([slope2 * slope1, phi2 * bend1 / 2, bend2 * log1 / 2]).sum(dim=1)
        return -torch.cat([(phi2 * log1)[:1], second]).sum(dim=(1, 2))

    return jacrev(terms)(h)


def split(student: Head, teacher: Head, h: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
    """The change of the term at a finite perturbation in its three parts, summed over classes: (M, N, 3).

    f(h + xi) - f(h) = -D2 . DL - phi2 . DL - log phi1 . D2 with D2, DL the changes of phi2 and log phi1. The parts'
    means are what "gradient", "student" and "teacher" become at that size of xi, for any distribution of mean zero
    and any head, kinks or not; divided by sigma^2 the last two are curvatures by smoothing, since over a pair
    DL(xi) + DL(-xi) is a second difference.
    """
    phi2, log1 = teacher(h), student(h).log()
    change2 = _on_all(teacher, h + xi) - phi2
    change1 = _on_all(lambda x: student(x).log(), h + xi) - log1
    return -torch.stack([change2 * change1, phi2 * change1, log1 * change2], dim=-1).sum(dim=-2)


def divergence(student: Head, teacher: Head, h: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
    """KL(phi2 || phi1) at perturbations of points, (M, N)."""
    return _on_all(lambda x: (teacher(x) * (teacher(x).log() - student(x).log())).sum(dim=-1), h + xi)


def agreeing(head: Head, other: Head, h: torch.Tensor) -> Head:
    """A head with its logits shifted, by a constant of each point of h (N, *shape), to the other's probabilities there.

    It takes batches of several perturbations of all points, one after the other.
    """
    shift = other(h).log() - head(h).log()
    return lambda x: (head(x).log() + shift.repeat(len(x) // len(shift), 1)).softmax(dim=-1)


def inconsistency(student: Head, teacher: Head, h: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Half the squared distance of the heads' gradients of log-probabilities, weighted by the teacher's: (N,).

    What E KL / sigma^2 tends to where the heads agree; directions as in `expand_value`.
    """
    _, slope1, _ = along(lambda x: student(x).log(), h, directions)
    log2, slope2, _ = along(lambda x: teacher(x).log(), h, directions)
    return (log2.exp() * (slope2 - slope1).square()).sum(dim=(0, 2)) / 2


def slope(sigmas: Sequence[float], residuals: Sequence[float]) -> float:
    """Exponent p of residual ~ sigma^p: the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sigmas), np.log(residuals), 1)[0])
