"""The words of Eq. 11's page on made-up numbers whose answer is known."""

import pandas as pd
import pytest

from dhm.analysis.theory import remainder, smooth

PAIRS = ("B0 ← B2", "B2 ← B0")


def measured(cells: dict, noise: str = "real augmentation", how: str = "finite", scale: float = 1.0) -> pd.DataFrame:
    """(method, seed, pair) -> (gradient, student, teacher), as rows of `branching.measure`."""
    return pd.DataFrame(
        [
            {"noise": noise, "how": how, "scale": scale, "part": part, "relative": value,
             "method": method, "seed": seed, "pair": pair}
            for (method, seed, pair), values in cells.items()
            for part, value in zip(("gradient", "student", "teacher"), values, strict=True)
        ]
    )  # fmt: skip


def test_pairs_of_opposite_sign_do_not_cancel() -> None:
    """Left out +0.6 of the kept term in one pair and -0.6 in the other: nothing on average, and not little."""
    table = measured({("baseline", 0, PAIRS[0]): (-0.5, -0.4, 0.1), ("baseline", 0, PAIRS[1]): (-0.5, 0.7, -0.4)})
    (sentence,) = remainder.left_out(table)
    assert sentence == (
        "**baseline, real augmentation.** The two terms left out are together -0.60 to +0.60 times the one kept, over "
        "2 pairs of student and teacher: 0.1 of it or more in each, so they cannot be left out."
    )


@pytest.mark.parametrize(
    ("second", "word"),
    [((-0.5, 0.30, -0.28), "little (below 0.1 of it) in each."), ((-0.5, 0.3, 0.0), "in 1 of them.")],
)
def test_what_is_little_by_pair(second: tuple, word: str) -> None:
    """Large terms that undo each other within a pair are little together: 0.02 of 0.5 is 0.04."""
    cells = {("dhm", 0, PAIRS[0]): (-0.5, 0.2, -0.22), ("dhm", 0, PAIRS[1]): second}
    other = measured({("dhm", 0, PAIRS[0]): (-0.5, 9, 9)}, noise="isotropic")
    (sentence,) = remainder.left_out(pd.concat([measured(cells), other]))
    assert sentence.startswith("**DHM, real augmentation.**")
    assert sentence.endswith(word)
    assert sentence.count("over 2 pairs") == 1


def test_networks_and_methods_count_by_themselves() -> None:
    """Seeds of opposite sign do not cancel either."""
    cells = {(method, seed, pair): (-1.0, 0.5 * (-1) ** seed, 0.0)
             for method in ("dsl", "dhm") for seed in (0, 1) for pair in PAIRS}  # fmt: skip
    first, second = remainder.left_out(measured(cells))
    assert first.startswith("**DSL")
    assert second.startswith("**DHM")
    assert "-0.50 to +0.50 times the one kept, over 4 pairs" in first
    assert first.endswith("so they cannot be left out.")


def test_orders_of_the_expansions() -> None:
    def found(printed: float, full: float) -> dict[str, tuple[list[float], float]]:
        return {"printed": ([1.0], printed), "full": ([1.0], full)}

    right = {quantity: found(2.05, 3.85) for quantity in smooth.QUANTITIES}
    told = remainder.mathematics(right)
    assert "the printed one by σ^2.05 (value), σ^2.05 (student's gradient); the full one by σ^3.85" in told
    assert told.endswith("not a second-order expansion.")
    assert "this check failed" in remainder.mathematics({**right, "value": found(2.15, 3.85)})
    assert "this check failed" in remainder.mathematics({**right, "value": found(2.05, 4.25)})


@pytest.mark.parametrize(("autodiff", "count"), [(0.09, 0), (0.16, 2), (-0.1, 2)])
def test_curvatures_off_by_more_than_half(autodiff: float, count: int) -> None:
    cell = ("dsl", 0, PAIRS[0])
    table = pd.concat(
        measured({cell: (9, value, value)}, "measured covariance", how, scale)
        for how, value in (("finite", 0.1), ("autodiff", autodiff))
        for scale in (1.0, 0.25)
    )
    table.loc[table["scale"] == 1.0, "relative"] = 7  # only the smallest noise counts
    told = remainder.kinks(table)
    assert f"In {count} of 2 curvatures" in told
    assert told.endswith("does not describe the average.") == (count == 2)


@pytest.mark.parametrize(
    ("full", "word"),
    [([0.5] * 4, "describe these heads better"), ([2.0] * 4, "lead away from the average"),
     ([0.5, 0.5, 0.5, 2.0], "so neither"), ([0.5, 2.0, 2.0, 2.0], "so neither")],
)  # fmt: skip
def test_which_expansion_is_closer(full: list[float], word: str) -> None:
    told = remainder.closer({"DHM": {"printed": ([1.0] * 4, 2.0), "full": (full, 4.0)}})
    assert f"in {sum(x < 1 for x in full)} of 4 cases" in told
    assert word in told
