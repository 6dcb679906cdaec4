"""How alike two branches of a trained network are: every reading of Figure 4 beside its null, and CKA."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats

from dhm.analysis.features.correlation import (
    READINGS,
    Matrix,
    debiased_cka,
    descriptors,
    matching_null,
    paired_layers,
    permutation_null,
    root_mean_square,
)
from dhm.analysis.statistics import LEVEL, Sample
from dhm.analysis.variants import spoken
from dhm.branches import BranchedNet
from dhm.config import METHODS
from dhm.errors import InputError

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


def of_networks(nets: Mapping[tuple[str, int], BranchedNet], layers: Sequence[str], permutations: int) -> pd.DataFrame:
    """`table` of several networks, with the columns method and seed.

    Args:
        nets: (method, seed) -> network.
    """
    rng = np.random.default_rng(0)
    pairs = {key: paired_layers(net) for key, net in nets.items()}
    return pd.concat(
        [
            table({layer: found[layer] for layer in layers}, permutations, rng).assign(method=method, seed=seed)
            for (method, seed), found in pairs.items()
        ],
        ignore_index=True,
    )


def maps(
    pairs: Mapping[str, Mapping[str, tuple[Matrix, Matrix]]], reading: str, layers: Sequence[str] = ()
) -> dict[str, dict[str, np.ndarray]]:
    """Layer -> method -> map of one reading.

    Args:
        pairs: method -> layer -> the two branches' matrices, as of `correlation.paired_layers`.
        layers: which, by default all.
    """
    chosen = layers or list(next(iter(pairs.values())))
    return {layer: {method: READINGS[reading](*found[layer]) for method, found in pairs.items()} for layer in chosen}


def choose(layers: Sequence[str], net: BranchedNet) -> list[str]:
    """The layers named, or some spread over the network where none is.

    Raises:
        InputError: a layer that B0 and B2 do not both have.
    """
    available = list(paired_layers(net))
    if not set(layers) <= set(available):
        raise InputError(f"layers must be among {', '.join(available)}, not {list(layers)}")
    return list(layers) or spread(available)


def spread(layers: Sequence[str]) -> list[str]:
    """Up to four of the layers, spread evenly, the first and the last among them."""
    return [layers[i] for i in sorted({round(x) for x in np.linspace(0, len(layers) - 1, 4)})]


def cka(net: BranchedNet, images: torch.Tensor) -> float:
    """Debiased linear CKA of B0's and B2's descriptors of the same images (N, C, H, W)."""
    features = descriptors(net, images)
    return debiased_cka(features["B0"], features["B2"])


def ckas(nets: Mapping[tuple[str, int], BranchedNet], images: torch.Tensor) -> pd.DataFrame:
    """`cka` of several networks by (method, seed), a row a seed, a column a method."""
    values = pd.Series({(seed, method): cka(net, images) for (method, seed), net in nets.items()})
    return values.unstack(sort=False).rename_axis(index="seed")


def cka_sentence(table: pd.DataFrame) -> tuple[str, str]:
    """The change of CKA from DSL to DHM over seeds with its 95 % interval, and what follows from it.

    Args:
        table: of `ckas`.
    """
    gap = table["dhm"] - table["dsl"]
    low, high = Sample.of(list(gap)).interval()
    told = (
        f"**CKA.** {table['dsl'].mean():.3f} under DSL, {table['dhm'].mean():.3f} under DHM "
        f"(95 % interval of the difference over {len(gap)} seeds: {low:+.3f} to {high:+.3f})"
    )
    if low > 0:
        return told, "the features are more alike under DHM, as the paper says"
    return told, "the features are less alike under DHM" if high < 0 else "the sign is open"


def over_seeds(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means over seeds, methods side by side, and p from the lowest seed to the highest: a mean of p-values is none.

    Args:
        table: rows of `table` with method, seed and the columns `by`, which become the rows of what is returned.
    """
    orders = {**{column: list(table[column].unique()) for column in by}, "method": list(METHODS)}
    typed = table.astype({column: pd.CategoricalDtype(order) for column, order in orders.items()})
    rows = typed.groupby(list(orders), observed=True)
    out = rows[["observed", "null_mean", "z"]].mean().round(3)
    out["p, by seed"] = rows["p"].agg(_extent)
    return out.unstack("method").rename(columns=spoken, level="method")


def _extent(p: pd.Series) -> str:
    low, high = f"{p.min():.3g}", f"{p.max():.3g}"
    return low if low == high else f"{low} to {high}"


def needed(networks: int, tests: int) -> int | None:
    """How many of so many networks must be beyond their null at `LEVEL` for it to be no chance; None if none would do.

    By the binomial distribution, and by Bonferroni over the number of such counts that are judged together.
    """
    chances = ((k, tests * stats.binom.sf(k - 1, networks, LEVEL)) for k in range(1, networks + 1))
    return next((k for k, chance in chances if chance <= LEVEL), None)


def judge(table: pd.DataFrame, permutations: int) -> pd.DataFrame:
    """Whether B0 and B2 correspond, and more so under DHM than under DSL: a row a statistic, judged by network.

    Layers of one network depend on each other, so a network counts once: it is beyond its null if its smallest p times
    the number of its layers is at most `LEVEL` (Bonferroni). How many must be is `needed` for the counts of all
    statistics and both methods. The methods are compared by the mean z over layers, seed by seed, with a t interval by
    Bonferroni over the statistics.

    Args:
        table: rows of `table` with method and seed.
        permutations: those it was made with.
    """
    statistics = list(table["statistic"].unique())
    rows = table.groupby(["statistic", "method", "seed"])
    smallest, layers, height = rows["p"].min(), rows["p"].size(), rows["z"].mean()
    beyond = smallest * layers <= LEVEL
    found: dict[str, dict[str, str]] = {}
    for statistic in statistics:
        gap = (height[statistic, "dhm"] - height[statistic, "dsl"]).dropna()
        low, high = Sample.of(list(gap)).interval(1 - LEVEL / len(statistics))
        found[statistic], sure = {}, {}
        for method in ("dsl", "dhm"):
            count = beyond[statistic, method]
            least = needed(len(count), 2 * len(statistics))
            sure[method] = least and count.sum() >= least
            shown = f"{count.sum()} of {len(count)}" + (f" ({least} needed)" if least else "")
            found[statistic][f"{spoken(method)} beyond its null"] = shown
        interval = f" [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else ""
        found[statistic]["z, DHM minus DSL"] = f"{gap.mean():+.2f}{interval}"
        drawn = min(permutations, MATCHINGS) if statistic == MATCHING else permutations
        if layers[statistic].max() / (1 + drawn) > LEVEL:
            word = "too few permutations for so many layers"
        elif None in sure.values():
            word = "too few networks"
        elif sure["dhm"]:
            word = "agrees with the paper" if low > 0 else "a correspondence, not shown to be larger under DHM"
        else:
            word = "a correspondence shown under DSL alone" if sure["dsl"] else "no correspondence shown"
        found[statistic]["verdict"] = word
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("statistic")
