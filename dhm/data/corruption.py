"""Wrong labels on purpose (appendix E)."""

import torch

from dhm.randomness import generator

_STREAM = 0x1ABE1  # keeps these draws apart from the order of the images under the same seed


def redraw(
    labels: torch.Tensor, share: float, num_classes: int, seed: int, exclude_truth: bool = False
) -> torch.Tensor:
    """Labels (N,) with exactly round(share N) of them, chosen at random, redrawn uniformly over the classes.

    Over all classes a redrawn label may fall on its true one, so about share (1 - 1 / classes) of them change; with
    `exclude_truth` over the other classes, and each of them changes. The images chosen are the same either way. The
    draw depends on the seed alone: it is the same for every method.
    """
    rng = generator(_STREAM, seed)
    chosen = torch.randperm(len(labels), generator=rng)[: round(share * len(labels))]
    drawn = torch.randint(0, num_classes - exclude_truth, (len(chosen),), generator=rng)
    if exclude_truth:
        drawn += drawn >= labels[chosen]  # the classes from the true one on move up by one
    return labels.scatter(0, chosen, drawn)
