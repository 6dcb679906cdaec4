"""Figure 4's verdict by network: rare on nulls, right on a planted correspondence."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import dhm
from dhm.analysis.features import correlation, likeness

NONE = "no correspondence shown"
STATISTICS = [f"{name}: {what}" for name, (what, _) in likeness.STATISTICS.items()] + [likeness.MATCHING]
PERMUTATIONS = 999


def tables(
    rng: np.random.Generator, seeds: int = 5, layers: int = 4, planted: tuple[str, ...] = (), alike: bool = False
) -> pd.DataFrame:
    """Uniform p of all statistics, or 0.001 for those planted in (method, ...); layers the same if `alike`."""
    rows = []
    for statistic in STATISTICS:
        for method in ("dsl", "dhm"):
            for seed in range(seeds):
                p = np.full(layers, rng.random()) if alike else rng.random(layers)
                if method in planted:
                    p[:] = 0.001 * (1 + rng.random(layers))
                rows += [
                    {"statistic": statistic, "method": method, "seed": seed, "layer": f"conv{i}", "p": x,
                     "z": stats.norm.isf(x), "observed": x, "null_mean": 0.0}
                    for i, x in enumerate(p)
                ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("seeds", [2, 5])
def test_a_false_verdict_is_rare(seeds: int, alike: bool) -> None:
    """Of tables without any correspondence at most 5 % may show one, however layers depend on each other."""
    rng = np.random.default_rng(seeds)
    false = 0
    for _ in range(100):
        false += (likeness.judge(tables(rng, seeds, alike=alike), PERMUTATIONS)["verdict"] != NONE).any()
    assert false <= 100 * 0.05


def test_a_planted_correspondence_is_found() -> None:
    rng = np.random.default_rng(0)
    judged = likeness.judge(tables(rng, planted=("dhm",)), PERMUTATIONS)
    assert list(judged.index) == STATISTICS
    assert (judged["verdict"] == "agrees with the paper").all()
    assert (judged["DHM beyond its null"] == "5 of 5 (3 needed)").all()
    judged = likeness.judge(tables(rng, planted=("dsl",)), PERMUTATIONS)
    assert (judged["verdict"] == "a correspondence shown under DSL alone").all()
    judged = likeness.judge(tables(rng, planted=("dsl", "dhm")), PERMUTATIONS)
    assert judged["verdict"].str.startswith("a correspondence, not shown to be larger").all()


def test_few_networks_or_permutations_decide_nothing() -> None:
    rng = np.random.default_rng(0)
    one = likeness.judge(tables(rng, seeds=1, planted=("dhm",)), PERMUTATIONS)
    assert (one["verdict"] == "too few networks").all()
    assert (one["DHM beyond its null"] == "1 of 1").all()
    assert not one["z, DHM minus DSL"].str.contains(r"\[").any()
    coarse = likeness.judge(tables(rng, planted=("dhm",)), 39)["verdict"]
    assert (coarse == "too few permutations for so many layers").all()
    many = likeness.judge(tables(rng, layers=6, planted=("dhm",)), PERMUTATIONS)["verdict"]
    assert many[likeness.MATCHING].startswith("too few permutations")  # its null has 99 at most
    assert (many.drop(likeness.MATCHING) == "agrees with the paper").all()


def test_needed() -> None:
    """Against the binomial distribution by hand: all of n with chance 0.05 ** n, times the number of counts."""
    assert likeness.needed(1, 1) == 1
    assert likeness.needed(1, 2) is None
    assert likeness.needed(2, 8) == 2  # 8 * 0.0025 = 0.02
    assert likeness.needed(2, 21) is None  # 21 * 0.0025 = 0.0525
    assert likeness.needed(5, 8) == 3  # 8 * 0.00116; two would be 8 * 0.0226
    assert likeness.needed(5, 1) == 2


def test_over_seeds() -> None:
    rows = pd.DataFrame(
        [("entry", layer, method, seed, value, p)
         for method, shift in (("dhm", 1), ("dsl", 0))
         for seed, (value, p) in enumerate([(0.2, 0.02), (0.4, 0.82)])
         for layer, value in (("conv4_1", value + shift), ("conv3_1", value + shift + 2))],
        columns=["statistic", "layer", "method", "seed", "observed", "p"],
    ).assign(null_mean=0.0, z=lambda t: t["observed"])  # fmt: skip
    found = likeness.over_seeds(rows, ["statistic", "layer"])
    assert list(found["observed"].columns) == ["DSL", "DHM"]
    assert list(found.index) == [("entry", "conv4_1"), ("entry", "conv3_1")]
    assert found.loc[("entry", "conv3_1"), ("observed", "DHM")] == pytest.approx(3.3)
    assert (found["p, by seed"] == "0.02 to 0.82").all(axis=None)
    single = likeness.over_seeds(rows[rows["seed"] == 0], ["statistic", "layer"])
    assert (single["p, by seed"] == "0.02").all(axis=None)


@pytest.fixture(scope="module")
def nets() -> dict[tuple[str, int], dhm.BranchedNet]:
    """Untrained networks of two methods and seeds."""
    found = {}
    for i, key in enumerate([("dsl", 0), ("dhm", 0), ("dsl", 1), ("dhm", 1)]):
        torch.manual_seed(i)
        found[key] = dhm.create_model("cifar_resnet", 5, depth=8).eval()
    return found


def test_layers_are_chosen_or_refused(nets: dict) -> None:
    net = nets["dsl", 0]
    available = list(correlation.paired_layers(net))
    assert likeness.choose([], net) == likeness.spread(available)
    assert likeness.choose(available[:1], net) == available[:1]
    with pytest.raises(dhm.InputError, match=f"layers must be among {', '.join(available)}, not"):
        likeness.choose([*available, "conv9_9"], net)


def test_tables_and_maps_of_several_networks(nets: dict) -> None:
    """Each network's own: observed statistics do not depend on the draws of the nulls."""
    layer = likeness.choose([], nets["dsl", 0])[0]
    table = likeness.of_networks(nets, [layer], 19)
    for (method, seed), net in nets.items():
        pairs = {layer: correlation.paired_layers(net)[layer]}
        alone = likeness.table(pairs, 19, np.random.default_rng(1))
        mine = table[(table["method"] == method) & (table["seed"] == seed)]
        assert mine["observed"].tolist() == alone["observed"].tolist()
    pairs = {method: correlation.paired_layers(nets[method, 0]) for method in ("dsl", "dhm")}
    maps = likeness.maps(pairs, "between channels", [layer])
    expected = correlation.READINGS["between channels"](*correlation.paired_layers(nets["dhm", 0])[layer])
    np.testing.assert_array_equal(maps[layer]["dhm"], expected)
    assert list(likeness.maps(pairs, "entry by entry")) == list(pairs["dsl"])


def test_cka_over_seeds(nets: dict) -> None:
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    table = likeness.ckas(nets, images)
    assert table.loc[1, "dhm"] == likeness.cka(nets["dhm", 1], images)
    assert list(table.columns) == ["dsl", "dhm"]


@pytest.mark.parametrize(
    ("gain", "word"), [([0.2, 0.21], "more alike under DHM"), ([-0.2, -0.21], "less alike"), ([0.2, -0.1], "open")]
)
def test_what_cka_says(gain: list[float], word: str) -> None:
    table = pd.DataFrame({"dsl": [0.5, 0.4], "dhm": [0.5 + gain[0], 0.4 + gain[1]]})
    told, verdict = likeness.cka_sentence(table)
    mean, half = np.mean(gain), stats.t.ppf(0.975, 1) * stats.sem(gain)
    assert f"over 2 seeds: {mean - half:+.3f} to {mean + half:+.3f})" in told
    assert word in verdict
