"""Tables and curves read from run records: names of runs, pairs of single runs, what is drawn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_config
from scipy import stats

import dhm
from dhm import plots
from dhm.analysis.evidence import pairs, results
from dhm.analysis.networks import cost
from dhm.analysis.statistics import Sample
from dhm.analysis.variants import method_of, spoken, variant
from dhm.config import METHODS
from dhm.data import load
from dhm.flops import training_flops
from dhm.paper import numbers, recipes
from dhm.plots.curves import accuracies
from dhm.training.evaluation import evaluate


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_every_printed_row_has_the_run_of_its_name(preset: str) -> None:
    """The recipe of a table makes the runs whose names its CSV gives, each once."""
    arch = "resnet18" if preset == "paper" else ""
    tables = {"table2": recipes.table2(preset, [arch] if arch else []), "table4": recipes.table4(preset, arch),
              "table5": recipes.table5(preset, arch), "directions": recipes.directions(preset, arch)}  # fmt: skip
    for table, configs in tables.items():
        names = [variant(config) for config in configs]
        assert len(set(names)) == len(names), table
        printed = {n.method.partition(" at ")[0] for n in numbers.table(table) if n.network == "resnet18"}
        assert printed <= set(names), table
        assert all(name.endswith(", fixed scale") for name in set(names) - printed), table


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "dhm"),
        ({"method": "baseline", "isolated": "B1"}, "B1 alone"),
        ({"direction": "top_down"}, "dhm top-down"),
        ({"branches": [{"name": "B1", "root": 2}], "method": "dsl"}, "dsl, bare heads"),
        ({"branches": [{"name": "B1", "root": 2}], "method": "baseline"}, "baseline"),
        ({"arch": "resnet18", "augment": "scale", "image_size": 64}, "dhm, with scale"),
        ({"arch": "resnet50", "augment": "scale", "image_size": 64}, "dhm"),
        ({"arch": "resnet50", "augment": "fixed_scale", "image_size": 64}, "dhm, fixed scale"),
        ({"arch": "resnet18", "augment": "fixed_scale", "image_size": 64, "method": "dsl"}, "dsl, fixed scale"),
    ],
)
def test_names_of_runs(changes: dict, name: str) -> None:
    assert variant(dhm.Config(**changes)) == name
    assert method_of(name) == changes.get("method", "dhm")


def test_spoken() -> None:
    assert [spoken(name) for name in ("baseline", "dsl, bare heads, fixed scale at B2", "dhm at B1")] == [
        "baseline", "DSL (bare heads, fixed scale) at B2", "DHM at B1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Baseline, DSL and DHM of a second each."""
    folder = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        dhm.fit(small_config(method=method), runs_dir=folder, accelerator="cpu", progress=False)
    return dhm.load_runs(folder)


def test_pairs_are_counted_on_the_predictions(runs: pd.DataFrame) -> None:
    found = pairs.observed(runs, [("baseline", "dhm"), ("dhm", "dhm at B1"), ("baseline", "missing")])
    assert list(found) == ["cifar_resnet_depth8: DHM over baseline", "cifar_resnet_depth8: DHM at B1 over DHM"]
    by_method = {row.method: np.load(Path(row.folder) / "predictions-last.npz") for row in runs.itertuples()}
    first, second = by_method["baseline"], by_method["dhm"]
    a, b = (arrays["predicted"][0] == arrays["labels"] for arrays in (first, second))
    pair = found["cifar_resnet_depth8: DHM over baseline"]
    assert (pair.only_first, pair.only_second) == ((~a & b).sum(), (a & ~b).sum())
    assert pair.p == pytest.approx(stats.binomtest(pair.only_first, pair.only_first + pair.only_second).pvalue)
    gain = results.gains(results.samples(runs), [("dhm", "dhm at B1")])[0]
    pair = found[gain.label]
    assert 100 * (pair.only_first - pair.only_second) / len(first["labels"]) == pytest.approx(gain.value)


def test_several_seeds_are_no_pair(runs: pd.DataFrame) -> None:
    assert pairs.observed(pd.concat([runs, runs]), [("baseline", "dhm")]) == {}


def test_different_test_images_are_told(runs: pd.DataFrame, tmp_path: Path) -> None:
    other = dhm.fit(small_config(test_on="val+rest", epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
    both = pd.concat([runs[runs["method"] == "baseline"], dhm.load_runs(other.folder)])
    with pytest.raises(dhm.InputError, match="were tested on different images"):
        pairs.observed(both, [("baseline", "dhm")])


def test_worst_case_is_the_largest_p_of_all_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "VALIDATION", 1000)
    printed = {("net", "a"): Sample(30.0, np.nan, 1), ("net", "b"): Sample(29.0, np.nan, 1)}
    worst = pairs.at_worst(printed, [("a", "b")])["net: b over a"]
    assert (worst.only_first, worst.only_second) == (300, 290)
    possible = [pairs.Pair(300 - both, 290 - both).p for both in range(291)]
    assert worst.p == max(possible)


def test_tables_show_what_the_samples_hold(runs: pd.DataFrame) -> None:
    variants = ["baseline", "dsl", "dhm", "dhm at B1"]
    table = results.overview({"paper": "table4", "ours": runs}, ["dhm", "dhm at B1"])
    assert list(table.columns) == [("paper", "resnet18"), ("ours", "cifar_resnet_depth8")]
    assert list(table.index) == ["DHM", "DHM at B1"]
    assert list(table["paper", "resnet18"]) == ["28.81 / 9.94", "–"]
    row = runs[runs["method"] == "dhm"].iloc[0]
    assert table["ours", "cifar_resnet_depth8"]["DHM at B1"] == (
        f"{row['last/B1/top1_error']:.2f} / {row['last/B1/top5_error']:.2f}"
    )
    best = results.samples(runs, which="best")
    assert best["cifar_resnet_depth8", "dhm"].mean == row["best/B0/top1_error"]
    figure = plots.ablation({"ours": results.samples(runs)}, variants)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["baseline", "DSL", "DHM", "DHM at B1"]


def test_gain_table_of_single_runs_tests_by_image(runs: pd.DataFrame) -> None:
    comparisons = [("baseline", "dhm")]
    found = results.gains(results.samples(runs), comparisons)
    network = "cifar_resnet_depth8"
    printed = {(network, method): Sample.of([error]) for method, error in (("baseline", 30.0), ("dhm", 27.0))}
    for known, word in ((printed, "in sign (one run)"), ({}, "one run")):  # without a printed gain there is no sign
        words = results.verdicts(found, known, same_data=False, seeds=5, comparisons=comparisons)
        table = results.gain_table(found, words, pairs.observed(runs, comparisons))
        assert "p (McNemar)" in table.columns
        assert "p (Welch)" not in table.columns
        assert table["verdict"].iloc[0].endswith(word)
    assert table["verdict"].iloc[0] == "one run"


def test_costs_tell_variants_apart() -> None:
    table = cost.table(recipes.table4("paper"), pace=1e-11)
    assert list(table.columns[:3]) == ["baseline", "baseline (fixed scale)", "DHM with B1"]
    all_branches, one_branch = (
        float(table[name].iloc[0].replace(",", "")) for name in ("DHM with B1 & B2 & B3", "DHM with B1")
    )
    assert all_branches > one_branch > 0


def test_pace_does_not_depend_on_the_size_of_the_images() -> None:
    """A machine of constant speed: an image twice as high and wide takes four times as long (convolutions alone)."""
    small = recipes.table2("paper", ["resnet18"], ["dhm"])[0].replace(dataset="fashion-mnist-mini")
    large = small.replace(image_size=2 * small.image_size, batch_size=16)
    flops = training_flops(small)
    assert training_flops(large) == pytest.approx(4 * flops, rel=0.001)
    assert cost.pace(small, small.batch_size * flops * 1e-11) == pytest.approx(1e-11)
    assert cost.pace(large, 16 * 4 * flops * 1e-11) == pytest.approx(1e-11, rel=0.001)


def test_pedestrians_are_half_as_wide_as_high() -> None:
    (run, *_) = recipes.table3("paper", ["mobilenet_v1"], ["market1501"], ["dhm"])
    drawn = run.replace(dataset="pedestrians", weights="", frozen_epochs=0)
    pace = cost.pace(drawn, step=1.0)
    assert 3600 * cost.hours(run, pace) == pytest.approx(12_936 / run.batch_size * run.epochs)


def test_curves_draw_the_records(runs: pd.DataFrame) -> None:
    """Train solid, validation dashed, one axis for all methods, and the last epochs again in the inset."""
    lines = {row.method: dhm.RunRecord.read(row.folder).metrics for row in runs.itertuples()}
    figure = plots.training({"net": lines}, {"net": {"dhm": 50.0}})
    ax = figure.axes[0]
    drawn = [line for line in ax.lines if len(line.get_xdata()) > 1]
    assert [line.get_linestyle() for line in drawn] == ["-", "--"] * 3
    for (train, validation), metrics in zip(zip(drawn[::2], drawn[1::2], strict=True), lines.values(), strict=True):
        assert list(train.get_xdata()) == [1, 2, 3]
        assert list(train.get_ydata()) == [100 * line["train"]["accuracy/B0"] for line in metrics]
        assert list(validation.get_ydata()) == [100 - line["test"]["B0"]["top1_error"] for line in metrics]
    (inset,) = ax.child_axes
    assert inset.get_xlim() == (2, 3)
    shown = [v for metrics in lines.values() for values in accuracies(metrics)[1:] for v in values[1:]]
    assert inset.get_ylim()[0] < min(shown)
    assert inset.get_ylim()[1] > max(*shown, 50.0)


def test_curves_of_a_single_epoch_have_no_inset() -> None:
    line = {"epoch": 0, "train": {"accuracy/B0": 0.5}, "test": {"B0": {"top1_error": 60.0}}}
    assert plots.training({"net": {"dhm": [line]}}).axes[0].child_axes == []


@pytest.mark.parametrize(("plain", "drawn"), [({"dhm": 50.0}, True), ({}, False)])
def test_the_legend_names_what_is_drawn(plain: dict[str, float], drawn: bool) -> None:
    """Kept records have no checkpoint, so nothing is known of their training images as they are."""
    line = {"epoch": 0, "train": {"accuracy/B0": 0.5}, "test": {"B0": {"top1_error": 60.0}}}
    (ax,) = plots.training({"net": {"dhm": [line]}}, {"net": plain}).axes
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any("eval mode" in text for text in told) == drawn
    assert any(mark.get_marker() == "D" for mark in ax.lines) == drawn


def test_training_images_as_they_are(tmp_path: Path) -> None:
    """Eval mode, no augmentation: by hand on the resident images, each once."""
    record = dhm.fit(small_config(epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
    net, data = dhm.load_trained(record), load(record.config)
    with torch.no_grad():
        answers = net(data.train.normalise(data.train.pixels)).argmax(dim=1)
    expected = 100 * (answers != data.train.labels).double().mean().item()
    summary = evaluate(net, record.config, accelerator="cpu", train=True).summary()
    assert summary["B0"]["top1_error"] == pytest.approx(expected)
