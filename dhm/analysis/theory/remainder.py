"""What Eq. 11 leaves out, in words: the sentences of its page, from the numbers measured there."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dhm.analysis.variants import spoken

ORDERS: Mapping[str, tuple[float, float]] = {"printed": (2, 0.1), "full": (4, 0.2)}
"""Exponent of sigma that an expansion's remainder must have on smooth heads, and how far off a fitted slope may be."""
LITTLE = 0.1
"""Share of the kept term below which the two left out, taken together, are called little."""
OFF = 0.5
"""Share of a curvature measured by smoothing; an almost-everywhere one that differs by more is called off."""
MOST = 0.75
"""Share of all cases in which one expansion must be the closer one to be called better."""


Residuals = Mapping[str, Mapping[str, tuple[Sequence[float], float]]]
"""Title -> a kind of `ORDERS` -> residuals over sigma, and the slope fitted to them."""


def mathematics(smooth: Residuals) -> str:
    """Whether both expansions keep the orders expected of them on smooth heads.

    Args:
        smooth: of `smooth.residuals`.
    """
    slopes = {kind: {name: found[kind][1] for name, found in smooth.items()} for kind in ORDERS}
    kept = all(abs(slope - order) <= off for kind, (order, off) in ORDERS.items() for slope in slopes[kind].values())
    told = (
        f"the {kind} one by " + ", ".join(f"σ^{slope:.2f} ({name})" for name, slope in slopes[kind].items())
        for kind in ORDERS
    )
    return (
        f"**The mathematics.** The expansions miss the truth: {'; '.join(told)}. " + (
            "So Eq. 11 drops terms of the order of the one it keeps; it is not a second-order expansion."
            if kept else "These are not the orders expected, so this check failed and nothing follows from it.")
    )  # fmt: skip


def left_out(measured: pd.DataFrame) -> list[str]:
    """How large the two terms left out are together beside the one kept, a sentence a method.

    Of every network and pair by itself, since terms of opposite sign would cancel in a mean over pairs; under the real
    augmentation.

    Args:
        measured: rows of `branching.measure` with columns method, seed and pair (student and teacher).
    """
    real, sentences = measured[measured["noise"] == "real augmentation"], []
    for method, rows in real.groupby("method", sort=False):
        part = rows.pivot_table(index=["seed", "pair"], columns="part", values="relative")
        share = (part["student"] + part["teacher"]) / part["gradient"]
        little, pairs = int((share.abs() < LITTLE).sum()), len(share)
        word = (
            f"{LITTLE:g} of it or more in each, so they cannot be left out" if little == 0
            else f"little (below {LITTLE:g} of it) in {'each' if little == pairs else f'{little} of them'}"
        )  # fmt: skip
        sentences.append(
            f"**{spoken(str(method))}, real augmentation.** The two terms left out are together {share.min():+.2f} to "
            f"{share.max():+.2f} times the one kept, over {pairs} pairs of student and teacher: {word}."
        )
    return sentences


def kinks(measured: pd.DataFrame) -> str:
    """Whether almost-everywhere curvatures are those that smoothing measures, at the smallest noise.

    Args:
        measured: see `left_out`.
    """
    chosen = measured[(measured["noise"] == "measured covariance") & (measured["part"] != "gradient")]
    chosen = chosen[chosen["scale"] == chosen["scale"].min()]
    sides = chosen.pivot_table(index=["method", "seed", "pair", "part"], columns="how", values="relative")
    wrong = int(((sides["finite"] - sides["autodiff"]).abs() > OFF * sides["finite"].abs()).sum())
    return (
        f"**Kinks.** In {wrong} of {len(sides)} curvatures, the almost-everywhere derivative is off by more than "
        f"{OFF:g} of what smoothing measures"
        + (": for ReLU heads it does not describe the average." if wrong > len(sides) / 2 else ".")
    )


def closer(trained: Residuals) -> str:
    """Which expansion comes closer to the expectation on trained heads.

    Args:
        trained: of `branching.residuals`.
    """
    cases = [
        full < printed
        for found in trained.values()
        for printed, full in zip(found["printed"][0], found["full"][0], strict=True)
    ]
    share = sum(cases) / len(cases)
    return (
        f"**The expansions on trained heads.** The full expansion is closer to the expectation than the printed one in "
        f"{sum(cases)} of {len(cases)} cases"
        + (": the dropped terms describe these heads better." if share > MOST
           else ": the dropped terms as automatic differentiation has them, blind to kinks, lead away from the average."
           if share < 1 - MOST else ", so neither describes these heads better than the other.")
    )  # fmt: skip
