"""How alike two branches of a trained network are: every reading of Figure 4 beside its null, and CKA."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from dhm.analysis.correlation import (
    READINGS,
    Matrix,
    debiased_cka,
    descriptors,
    matching_null,
    permutation_null,
    root_mean_square,
)
from dhm.branches import BranchedNet

STATISTICS = {
    "between filters": ("root mean square", root_mean_square),
    "between channels": ("root mean square", root_mean_square),
    "entry by entry": ("mean", lambda correlations: float(np.mean(correlations))),
}
"""What a map is summed up by; entry by entry the mean is the correlation of the two matrices."""
MATCHING = "best matching: correlation"
MATCHINGS = 99
"""Permutations of the matching's null at most: each solves many assignments."""


def table(pairs: Mapping[str, tuple[Matrix, Matrix]], permutations: int, rng: np.random.Generator) -> pd.DataFrame:
    """A row for every layer and statistic.

    Args:
        pairs: of `correlation.paired_layers`, the layers to look at.
        permutations: of every null.

    Returns:
        layer; statistic; observed; null_mean, null_low, null_high (95 % of the null); z; p (one-sided).
    """
    rows = []
    for layer, (a, b) in pairs.items():
        found = {
            f"{name}: {what}": permutation_null(READINGS[name], statistic, a, b, permutations, rng)
            for name, (what, statistic) in STATISTICS.items()
        }
        found[MATCHING] = matching_null(a, b, min(permutations, MATCHINGS), rng)
        for statistic, null in found.items():
            low, high = np.quantile(null.values, [0.025, 0.975])
            rows.append(
                {"layer": layer, "statistic": statistic, "observed": null.observed, "null_mean": null.values.mean(),
                 "null_low": low, "null_high": high, "z": null.z, "p": null.p}
            )  # fmt: skip
    return pd.DataFrame(rows)


def spread(layers: Sequence[str], most: int = 4) -> list[str]:
    """Up to `most` of the layers, spread evenly, the first and the last among them."""
    return [layers[i] for i in sorted({round(x) for x in np.linspace(0, len(layers) - 1, most)})]


def cka(net: BranchedNet, images: torch.Tensor, first: str = "B0", second: str = "B2") -> float:
    """Debiased linear CKA of two classifiers' descriptors of the same images (N, C, H, W)."""
    features = descriptors(net, images)
    return debiased_cka(features[first], features[second])
