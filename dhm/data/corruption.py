"""Wrong labels on purpose (appendix E)."""

import torch

from dhm.randomness import generator

_STREAM = 0x1ABE1  # keeps these draws apart from the order of the images under the same seed


def redraw(labels: torch.Tensor, share: float, num_classes: int, seed: int) -> torch.Tensor:
    """Labels (N,) with exactly round(share N) of them, chosen at random, redrawn uniformly over all classes.

    A redrawn label may fall on its true class, so about share (1 - 1 / classes) of them change. The draw depends
    on the seed alone: it is the same for every method.
    """
    rng = generator(_STREAM, seed)
    chosen = torch.randperm(len(labels), generator=rng)[: round(share * len(labels))]
    drawn = torch.randint(0, num_classes, (len(chosen),), generator=rng)
    return labels.scatter(0, chosen, drawn)
