"""Sentences and tables on cosines of gradients, from cosines written by hand."""

import itertools

import pandas as pd
import pytest
import torch
from scipy import stats

import dhm
from dhm.analysis.features import agreement
from dhm.analysis.features.gradients import consistency, held_out
from dhm.data.images import Images


def cosines(dsl: list[float], dhm_: list[float], conflicting: float = 0.0) -> pd.DataFrame:
    """Two seeds at two places: the cosines of DSL and DHM, by seed and place."""
    same = {"first": "B0", "second": "B1", "batch_cosine": 0.0, "low": 0.0, "high": 0.0, "norm_first": 1.0,
            "norm_second": 1.0, "conflicting": conflicting}  # fmt: skip
    rows = [
        {"seed": seed, "stage": stage, "method": method, "cosine": values[2 * seed + stage], **same}
        for (method, values), seed, stage in itertools.product({"dsl": dsl, "dhm": dhm_}.items(), (0, 1), (0, 1))
    ]
    return pd.DataFrame(rows)


def test_conflict_is_said_where_it_is() -> None:
    agree = agreement.conflict(cosines([0.2, 0.3, 0.4, 0.5], [0.5] * 4, 0.01))
    assert "lies between 0.20 and 0.50; 1.0 % of micro-batches conflict (DHM 1.0 %)" in agree
    assert agree.endswith("mostly agree.")
    for table in (cosines([-0.2, 0.3, 0.4, 0.5], [0.5] * 4), cosines([0.2] * 4, [0.5] * 4, 0.06)):
        assert agreement.conflict(table).endswith("as the paper supposes.")


@pytest.mark.parametrize(
    ("shift", "word", "higher"),
    [([0.1] * 4, "This agrees", 2), ([-0.1] * 4, "This disagrees", 0), ([0.1, 0.1, -0.1, 0.2], "decides nothing", 1)],
)  # fmt: skip
def test_mimicking_is_judged_by_seed(shift: list[float], word: str, higher: int) -> None:
    """The interval is Student's over the seeds' means over places."""
    dsl = [0.2, 0.3, 0.4, 0.5]
    told = agreement.mimicking(cosines(dsl, [a + b for a, b in zip(dsl, shift, strict=True)]))
    means = [(shift[0] + shift[1]) / 2, (shift[2] + shift[3]) / 2]
    half = stats.t.ppf(0.975, 1) * stats.sem(means)
    mean = sum(means) / 2
    assert f"changes by {mean:+.3f}" in told
    assert f"over 2 seeds: {mean - half:+.3f} to {mean + half:+.3f})" in told
    assert f"in every seed in {higher} of 2 places" in told
    assert word in told


def test_full_losses_stand_beside_the_cross_entropies() -> None:
    plain, full = cosines([0.2] * 4, [0.4, 0.2, 0.4, 0.2]), cosines([0.2] * 4, [0.1, 0.3, 0.1, 0.3])
    both = agreement.beside_full(plain[plain["method"] == "dhm"], full[full["method"] == "dhm"])
    assert both.loc[(0, "B0", "B1"), ("cosine", "full")] == 0.1
    told = agreement.full_losses(both)
    assert "lower the cosine in 1 of 2 places, by -0.100 on average" in told


def test_networks_are_measured_each_by_itself() -> None:
    pixels = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.arange(12) % 5, torch.full((3,), 0.5), torch.full((3,), 0.25))
    nets = {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets["dsl", seed, 3] = dhm.create_model("cifar_resnet", 5, depth=8)
    table = agreement.measure(nets, images, "dsl", "running", micro=4, count=8)
    for (method, seed, epoch), net in nets.items():
        mine = table[table["seed"] == seed]
        assert set(mine["epoch"]) == {epoch}
        assert set(mine["method"]) == {method}
        alone = consistency(net, held_out(images, 4, 8), dhm.DHMLoss("dsl"), "running")
        assert mine["cosine"].tolist() == alone["cosine"].tolist()
    means = agreement.over_seeds(table)
    place = (0, "B0", "B1", "DSL")
    by_hand = table[(table["stage"] == 0) & (table["first"] == "B0") & (table["second"] == "B1")]["cosine"].mean()
    assert means.loc[place, "cosine"] == pytest.approx(by_hand, abs=6e-4)
