"""Figures of the analyses: what is drawn, and that no text leaves the figure or covers other text."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from readable import assert_readable, texts

import dhm
from dhm import BranchSpec
from dhm.analysis.networks import architecture
from dhm.plots import correlation, eq11, gradients, heads, network, style
from dhm.plots.style import HEADS


@pytest.mark.parametrize(
    ("name", "branches", "options"),
    [
        ("resnet32", "paper", {}),
        ("densenet40_12", "paper", {}),
        ("wrn", "paper", {"depth": 16, "width": 2}),
        ("cifar_resnet", [BranchSpec("B1", 2), BranchSpec("B2", 1, (1, 1)), BranchSpec("B3", 0)], {"depth": 8}),
        ("cifar_resnet", "none", {"depth": 8}),
    ],
)
def test_network_is_drawn_as_it_is(name: str, branches: object, options: dict) -> None:
    net = dhm.create_model(name, 10, branches, **options)
    fig = network.draw_network(net, 32, title="a network")
    found = assert_readable(fig)
    assert set(net.heads) <= set(found)
    for (a, box), (b, other) in itertools.combinations(
        [(text, box) for text, several in found.items() for box in several], 2
    ):
        apart = box.x1 < other.x0 or other.x1 < box.x0 or box.y1 < other.y0 or other.y1 < box.y0
        assert apart, (a, b)
    arcs = [p for p in fig.axes[0].patches if type(p).__name__ == "FancyArrowPatch"]
    assert len(arcs) == len(net.heads) * (len(net.heads) - 1) // 2


def test_blocks_channels_and_sizes_of_table_7() -> None:
    found = texts(network.draw_network(dhm.create_model("densenet40_12"), 32))
    assert len(found["conv2_x\n12 blocks\n160 × 32×32"]) == 1
    assert len(found["conv3_x\n12 blocks\n304 × 16×16"]) == 2  # B0 and B2
    assert "conv4_x\n6 blocks\n376 × 8×8" in found  # B2
    assert "conv4_x\n12 blocks\n736 × 8×8" in found  # B1


def test_an_image_may_be_higher_than_wide() -> None:
    """A pedestrian through the network of Table 10."""
    (built,) = architecture.build(["mobilenet_v1"]).values()
    found = assert_readable(network.draw_network(*built))
    assert {"image\n256×128", "stem\n32 × 128×64", "conv6_x\n2 blocks\n1024 × 8×4"} <= found.keys()


def test_residuals_and_terms() -> None:
    sigmas = np.array([0.1, 0.2, 0.4])
    fig = eq11.residuals(sigmas, {"value": {"printed": (sigmas**2, 2.0), "full": (sigmas**4, 4.0)}})
    assert "full second order: slope 4.00" in assert_readable(fig)
    rows = [
        {"noise": noise, "how": "finite", "scale": scale, "method": method, "seed": seed, "pair": "B0 ← B2",
         "part": part, "relative": 1e-4 * (i + seed) / scale, "error": 1e-5}
        for scale, seed in itertools.product((1.0, 0.25), (0, 2))
        for i, (noise, method, part) in enumerate(
            itertools.product(("isotropic", "real augmentation", "measured covariance"), ("dsl", "dhm"), eq11.PARTS)
        )
    ]  # fmt: skip
    fig = eq11.term_sizes(pd.DataFrame(rows))
    assert "DHM  B0 ← B2" in assert_readable(fig)
    assert [ax.get_title() for ax in fig.axes] == ["real augmentation", "isotropic noise, finite size"]
    first = fig.axes[1].containers[1]  # the gradient part under isotropic noise, after its error bars
    assert [bar.get_width() for bar in first] == pytest.approx([1e-4, 4e-4])  # means over seeds at the whole size


def test_a_figure_is_shown_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list = []
    monkeypatch.setenv("DHM_FIGURES", str(tmp_path))
    monkeypatch.setattr(style, "display", shown.append)
    fig, _ = style.figure(1, 1, (7.0, 4.0))
    style.show(fig, "one")
    assert shown == [fig]
    assert (tmp_path / "one.png").stat().st_size > 0


def test_cosines() -> None:
    rows = [
        {"stage": stage, "first": "B0", "second": second, "method": method, "seed": seed, "epoch": epoch,
         "cosine": 0.3, "low": 0.1, "high": 0.4}
        for stage, second, method, seed, epoch in itertools.product(
            (0, 1), ("B1", "B2"), ("dsl", "dhm"), (0, 1), (1, 5)
        )
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    assert {"stem", "conv2_x", "B0 and B2", "DSL"} <= set(assert_readable(gradients.cosines(table)))
    assert "DHM  B0, B2" in assert_readable(gradients.over_training(table))


def test_correlation_maps_and_nulls() -> None:
    rng = np.random.default_rng(0)
    maps = {layer: {method: rng.normal(size=(8, 6)) for method in ("dsl", "dhm")} for layer in ("conv3_1", "conv4_1")}
    fig = correlation.heatmaps(maps, "entry by entry")
    assert {"conv4_1, DHM", "input channel", "output channel"} <= set(assert_readable(fig))
    images = [image for ax in fig.axes for image in ax.images]
    assert len({image.get_clim() for image in images[:4]}) == 1
    rows = [
        {"layer": layer, "method": method, "statistic": "between filters: root mean square", "observed": 0.2,
         "null_low": 0.1, "null_high": 0.3}
        for layer, method in itertools.product(maps, ("dsl", "dhm"))
    ]  # fmt: skip
    assert "root mean square" in assert_readable(correlation.nulls(pd.DataFrame(rows)))


def test_bands_reach_from_the_lowest_to_the_highest_run() -> None:
    """Mean line and band of two made-up runs, for every head in training and on the test images."""

    def run(shift: float) -> list[dict]:
        return [
            {"train": {"accuracy/B0": 0.4 + 0.1 * epoch + shift, "accuracy/B1": 0.3 + shift},
             "test": {"B0": {"top1_error": 60 - 10 * epoch - 100 * shift}, "B1": {"top1_error": 70 - 100 * shift}}}
            for epoch in range(3)
        ]  # fmt: skip

    runs = [run(0.0), run(0.1)]
    figure = heads.by_head({"made up": {"dhm": runs}})
    (ax,) = figure.axes
    thick, thin = ([line for line in ax.lines if (line.get_linewidth() > 1) == mean] for mean in (True, False))
    lines = {(line.get_color(), line.get_linestyle()): line.get_ydata() for line in thick}
    np.testing.assert_allclose(lines[HEADS[0], "-"], [45, 55, 65])
    np.testing.assert_allclose(lines[HEADS[0], "--"], [45, 55, 65])
    np.testing.assert_allclose(lines[HEADS[1], "--"], [35, 35, 35])
    assert len(thin) == 2 * 2 * len(runs)
    np.testing.assert_allclose([line.get_ydata() for line in thin[:2]], [[40, 50, 60], [50, 60, 70]])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((40, 70))
    assert "2 runs" in ax.get_title()
    drawn = heads.against_cost({"made up": {"dhm": (2e12, runs)}}).axes[0].lines
    (priced,) = (line for line in drawn if line.get_linewidth() > 1)
    np.testing.assert_allclose(priced.get_xdata(), [2, 4, 6])
    np.testing.assert_allclose(priced.get_ydata(), [55, 45, 35])
