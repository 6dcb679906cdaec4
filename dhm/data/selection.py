"""Which classes and images of a data set a run uses."""

import torch

from dhm.errors import InputError


def evenly_spaced(available: int, wanted: int | None) -> torch.Tensor:
    """Labels of `wanted` classes: every k-th in sorted order, k as large as possible."""
    wanted = available if wanted is None else wanted
    if wanted > available:
        raise InputError(f"classes is {wanted}, but the data set has {available}")
    return torch.arange(0, available, available // wanted)[:wanted]


def first_of_each_class(
    labels: torch.Tensor, kept: torch.Tensor, count: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the first `count` images of every class kept, and of the others of these classes."""
    of_class = [(labels == label).nonzero().flatten() for label in kept]
    fewest = min(len(indices) for indices in of_class)
    if count is not None and count > fewest:
        raise InputError(f"train_per_class is {count}, but a class has only {fewest} training images")
    first = torch.cat([indices[:count] for indices in of_class]).sort().values
    rest = torch.cat([indices[count:] if count else indices[:0] for indices in of_class]).sort().values
    return first, rest
