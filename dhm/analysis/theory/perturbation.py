"""Gaussian perturbations of a representation and expectations under them.

Appendix C perturbs the representation theta(x) by xi of zero mean and "variance sigma", used as sigma^2 times the
identity. Here xi = sigma sum_j z_j d_j with independent standard normal z_j, so its covariance is sigma^2 C with
C = sum_j d_j d_j^T: the unit vectors give the paper's isotropic noise, measured deviations give a measured C.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Integrand = Callable[[torch.Tensor], torch.Tensor]
"""A quantity at perturbations (M, N, *shape) of N points: -> (M, N, ...)."""
NODES, AT_ONCE = 40, 32
"""Nodes an axis of quadrature, and pairs of samples that stand in memory together."""


@dataclass(frozen=True)
class Isotropic:
    """C = I on representations of this shape."""

    shape: tuple[int, ...]

    def sample(self, points: int, count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` draws for each point, (count, points, *shape), and the z behind them, (count, points, r)."""
        z = torch.randn(count, points, *self.shape, generator=rng, dtype=torch.float64)
        return z, z.flatten(2)

    def directions(self, probes: int, rng: torch.Generator) -> torch.Tensor:
        """d_j with sum_j d_j d_j^T = C, (J, 1, *shape): all unit vectors where `probes` would not save work, else as
        many random signs (Hutchinson), for which it holds in expectation."""
        size = int(np.prod(self.shape))
        if size <= probes:
            return torch.eye(size, dtype=torch.float64).view(size, 1, *self.shape)
        signs = torch.randint(0, 2, (probes, 1, *self.shape), generator=rng).double() * 2 - 1
        return signs / probes**0.5


@dataclass(frozen=True)
class Measured:
    """C = sum_j d_j d_j^T of given directions, (J, N, *shape): every one of the N points has its own covariance.

    `of` makes it from samples of the representations, strongest directions first.
    """

    factor: torch.Tensor

    @classmethod
    def of(cls, samples: torch.Tensor) -> "Measured":
        """The sample covariance of (M, N, *shape), as its M - 1 principal directions at each point."""
        copies = len(samples)
        deviations = (samples - samples.mean(dim=0)).flatten(2).transpose(0, 1) / (copies - 1) ** 0.5
        _, scale, basis = torch.linalg.svd(deviations, full_matrices=False)
        principal = (scale[..., None] * basis)[:, : copies - 1]
        return cls(principal.transpose(0, 1).reshape(-1, *samples.shape[1:]))

    def sample(self, points: int, count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """As of `Isotropic`, at the N points that C was measured at."""
        rank = len(self.factor)
        z = torch.randn(points, count, rank, generator=rng, dtype=torch.float64)
        draws = torch.bmm(z, self.factor.flatten(2).transpose(0, 1)).transpose(0, 1)
        return draws.reshape(count, *self.factor.shape[1:]), z.transpose(0, 1)

    def directions(self, probes: int, rng: torch.Generator) -> torch.Tensor:
        """All principal directions: the trace is exact."""
        return self.factor

    @property
    def variance(self) -> torch.Tensor:
        """tr C at every point, (N,)."""
        return self.factor.flatten(2).square().sum(dim=(0, 2))


def quadrature(f: Integrand, sigma: float) -> torch.Tensor:
    """E f(xi) for xi ~ N(0, sigma^2 I) on the plane by a tensor grid of Gauss-Hermite nodes, (N, ...).

    `NODES` nodes an axis integrate polynomials up to degree 2 `NODES` - 1 exactly.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    grid = torch.cartesian_prod(*[torch.from_numpy(nodes)] * 2)
    share = torch.cartesian_prod(*[torch.from_numpy(weights / weights.sum())] * 2).prod(dim=1)
    return torch.tensordot(share, f(sigma * grid[:, None, :]), dims=([0], [0]))


def monte_carlo(
    f: Integrand, perturbation: Isotropic | Measured, points: int, sigma: float, pairs: int, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """E f(xi) and its standard error at every point, each (N, ...), from `pairs` antithetic pairs.

    The mean of f(xi) and f(-xi) has no odd order. Its second order is a quadratic form of z; the control variates
    are the products z_i z_j - [i = j] of the leading coordinates, whose mean is zero, so the form is regressed away
    as far as they span it. Coefficients of one half of the pairs serve the other half, which keeps the estimate
    unbiased.
    """
    values, controls = [], []
    for start in range(0, pairs, AT_ONCE):
        xi, z = perturbation.sample(points, min(AT_ONCE, pairs - start), rng)
        values.append((f(sigma * xi) + f(-sigma * xi)) / 2)
        controls.append(_centred_products(z, limit=pairs // 20))
    y = torch.cat(values).movedim(0, 1)  # (N, pairs, ...)
    shape, y = y.shape, y.flatten(2) if y.dim() > 2 else y[..., None]
    c = torch.cat(controls).movedim(0, 1)
    halves = slice(0, pairs // 2), slice(pairs // 2, pairs)
    adjusted = torch.empty_like(y)
    for mine, other in (halves, halves[::-1]):
        design = c[:, other] - c[:, other].mean(dim=1, keepdim=True)
        coefficients = torch.linalg.lstsq(design, y[:, other] - y[:, other].mean(dim=1, keepdim=True)).solution
        adjusted[:, mine] = y[:, mine] - c[:, mine] @ coefficients
    error = adjusted.std(dim=1) / pairs**0.5
    left = (shape[0], *shape[2:])
    return adjusted.mean(dim=1).reshape(left), error.reshape(left)


def _centred_products(z: torch.Tensor, limit: int) -> torch.Tensor:
    """z_i z_j - [i = j] for i <= j of the leading coordinates, at most `limit` of them: (..., r) -> (..., <= limit)."""
    leading = max(n for n in range(z.shape[-1] + 1) if n * (n + 1) // 2 <= limit)
    rows, columns = torch.triu_indices(leading, leading)
    return z[..., rows] * z[..., columns] - (rows == columns).to(z.dtype)
