"""What cosines of gradients at the trunk come to over networks: tables, and the sentences that follow from them."""

from collections.abc import Mapping

import pandas as pd

from dhm.analysis.features.gradients import consistency, held_out
from dhm.analysis.statistics import Sample
from dhm.analysis.variants import spoken
from dhm.branches import BranchedNet
from dhm.data import ImageSet
from dhm.losses import DHMLoss

PLACE = ["stage", "first", "second"]
"""Where two classifiers' gradients meet."""
SHOWN = ["cosine", "batch_cosine", "low", "high", "conflicting", "norm_first", "norm_second"]
RARE = 0.05
"""Share of micro-batches below which conflict is called rare."""


def measure(
    nets: Mapping[tuple[str, int, int], BranchedNet], images: ImageSet, loss: str, batch_norm: str, micro: int,
    count: int,
) -> pd.DataFrame:  # fmt: skip
    """`consistency` of several networks, with the columns method, seed and epoch.

    Args:
        nets: (method, seed, epoch) -> network.
        images: held out; `count` of them are taken, in micro-batches of `micro`.
        loss: whose gradients: "dsl" for the cross-entropies alone, "dhm" with the mimicking terms.
        batch_norm: see `consistency`.
    """
    return pd.concat(
        [
            consistency(net, held_out(images, micro, count), DHMLoss(loss), batch_norm).assign(
                method=method, seed=seed, epoch=epoch
            )
            for (method, seed, epoch), net in nets.items()
        ],
        ignore_index=True,
    )


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, a row a place and method."""
    means = table.groupby([*PLACE, "method"], sort=False)[SHOWN].mean()
    return means.round(3).rename(index=spoken, level="method")


def beside_full(plain: pd.DataFrame, full: pd.DataFrame) -> pd.DataFrame:
    """Cosines and conflicts of the cross-entropies' gradients beside those of the full losses, means over seeds.

    Args:
        plain, full: of `measure`, of the same networks.
    """
    both = pd.concat([plain.assign(loss="cross-entropy"), full.assign(loss="full")])
    return both.pivot_table(index=PLACE, columns="loss", values=["cosine", "conflicting"], sort=False)


def by_place(table: pd.DataFrame) -> pd.DataFrame:
    """Cosines of the cross-entropies' gradients by experiment and place, methods side by side, means over seeds.

    Args:
        table: of `kept.gradients`.
    """
    plain = table[table["loss"] == "cross-entropy"]
    cells = plain.pivot_table(index=["experiment", *PLACE], columns="method", values="cosine", sort=False)
    return cells.round(3).rename(columns=spoken).astype(object).fillna("–")


def conflict(table: pd.DataFrame) -> str:
    """Whether classifiers trained without mimicking pull the trunk in opposite ways."""
    cosines = table[table["method"] == "dsl"].groupby(["seed", *PLACE])["cosine"].mean()
    share = table.groupby("method")["conflicting"].mean()
    return (
        f"**Conflict.** Under DSL the cosine over held-out images lies between {cosines.min():.2f} and "
        f"{cosines.max():.2f}; {100 * share['dsl']:.1f} % of micro-batches conflict (DHM {100 * share['dhm']:.1f} %). "
        + ("The inconsistency the paper speaks of is not conflict here: the gradients mostly agree."
           if cosines.min() > 0 and share["dsl"] < RARE else "Some gradients conflict, as the paper supposes.")
    )  # fmt: skip


def mimicking(table: pd.DataFrame) -> str:
    """Whether the cosine of the cross-entropies' gradients is higher under DHM than under DSL of the same seed."""
    cosines = table.pivot_table(index=["seed", *PLACE], columns="method", values="cosine")
    difference = cosines["dhm"] - cosines["dsl"]
    lowest, per_seed = difference.groupby(PLACE).min(), difference.groupby("seed").mean()
    low, high = Sample.of(list(per_seed)).interval()
    return (
        f"**DHM against DSL, cross-entropies alone.** The cosine changes by {per_seed.mean():+.3f} on average over "
        f"stages and pairs (95 % interval over {len(per_seed)} seeds: {low:+.3f} to {high:+.3f}); it is higher under "
        f"DHM in every seed in {(lowest > 0).sum()} of {len(lowest)} places. "
        + ("This agrees with the claim." if low > 0 else "This disagrees with the claim." if high < 0
           else "The seeds leave the sign open, so this decides nothing.")
    )  # fmt: skip


def full_losses(both: pd.DataFrame) -> str:
    """How the mimicking terms move the cosines by themselves.

    Args:
        both: of `beside_full`.
    """
    shift = both["cosine", "full"] - both["cosine", "cross-entropy"]
    return (
        f"**Full losses.** Under DHM the mimicking terms lower the cosine in {(shift < 0).sum()} of {len(shift)} "
        f"places, by {shift.mean():+.3f} on average. They are made so: of a pair, the two mimicking gradients start "
        "from differences of opposite sign. This speaks neither for nor against the claim."
    )
