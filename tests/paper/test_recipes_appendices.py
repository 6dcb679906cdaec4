"""Appendices D to F: branches drawn by epoch, wrong labels, two treatments crossed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_config
from scipy import stats
from statsmodels.formula.api import ols
from torch.nn import functional as F

import dhm
from dhm import plots
from dhm.analysis.evidence import factorial, results, wrong_labels
from dhm.analysis.evidence.factorial import interaction
from dhm.analysis.statistics import Sample
from dhm.analysis.variants import names, spoken
from dhm.data import corruption, load
from dhm.losses import taking_part
from dhm.paper import presets, recipes
from dhm.records import checkpoints
from dhm.training.step import Trainer


def train(config: dhm.Config, folder: Path, **options) -> dhm.RunRecord:
    return dhm.fit(config, runs_dir=folder, accelerator="cpu", progress=False, **options)


# Appendix D


def test_draw_is_a_function_of_seed_and_epoch() -> None:
    draws = {
        place: taking_part(("B1", "B2", "B3"), 0.5, *place) for place in [(s, e) for s in (0, 1) for e in range(40)]
    }
    assert draws == {place: taking_part(("B1", "B2", "B3"), 0.5, *place) for place in reversed(draws)}
    assert [draws[0, epoch] for epoch in range(40)] != [draws[1, epoch] for epoch in range(40)]
    assert taking_part(("B1", "B2"), 1.0, 0, 0) == ["B1", "B2"]
    assert taking_part(("B1", "B2"), 0.0, 0, 0) == []


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_branches_are_drawn_as_often_as_asked_and_independently(probability: float) -> None:
    """Within four standard deviations of the binomial, each branch and both at once."""
    drawn = [taking_part(("B1", "B2"), probability, 3, epoch) for epoch in range(2000)]
    for expected, count in [
        (probability, sum("B1" in d for d in drawn)),
        (probability, sum("B2" in d for d in drawn)),
        (probability**2, sum(len(d) == 2 for d in drawn)),
    ]:
        assert count == pytest.approx(2000 * expected, abs=4 * stats.binom(2000, expected).std())


def test_epoch_uses_what_was_drawn_and_says_so(tmp_path: Path) -> None:
    """The terms in a line of metrics are those of the branches it names; cross-entropies are always there."""
    record = train(small_config(mimic_probability=0.5, epochs=6, train_per_class=16), tmp_path)
    seen = set()
    for line in record.metrics:
        assert line["mimicking"] == taking_part(("B1", "B2"), 0.5, 0, line["epoch"])
        part = {"B0", *line["mimicking"]}
        seen.add(frozenset(part))
        terms = {name for name in line["train"] if name.startswith("kl/")}
        assert terms == {f"kl/{q}<-{p}" for q in part for p in part if p != q}
        assert {"ce/B0", "ce/B1", "ce/B2"} <= line["train"].keys()
    assert len(seen) > 1
    assert "mimicking" not in train(small_config(epochs=1), tmp_path).metrics[0]


def test_stopped_run_draws_what_it_would_have_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(mimic_probability=0.5, epochs=5, train_per_class=16)
    whole = train(config, tmp_path / "whole")
    step, calls = Trainer.step, []

    def stop(self: Trainer, *arguments) -> list:
        calls.append(arguments)
        if len(calls) == 9:  # the last of three steps of the third epoch
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", checkpoint_every=0.0)
    resumed = train(config, tmp_path / "stopped", checkpoint_every=0.0)
    assert len(resumed.environment) == 2
    a, b = (checkpoints.load(record.folder / "last.pt")["net"] for record in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    kept = [[{k: v for k, v in line.items() if k != "seconds"} for line in r.metrics] for r in (whole, resumed)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "half"])
def test_wrong_probability(value: object) -> None:
    with pytest.raises(dhm.InputError, match="mimic_probability must be"):
        dhm.Config(mimic_probability=value)


def test_new_settings_leave_old_identities_alone() -> None:
    assert dhm.Config().digest == dhm.Config(mimic_probability=1.0, label_noise_excludes_truth=False).digest
    assert dhm.Config().digest != dhm.Config(mimic_probability=0.5).digest


# Appendix E


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_redrawing_past_the_truth_changes_exactly_its_share(share: float) -> None:
    labels = torch.randint(0, 5, (10_001,), generator=torch.Generator().manual_seed(1))
    redrawn = corruption.redraw(labels, share, 5, seed=0, exclude_truth=True)
    changed = redrawn != labels
    assert changed.sum() == round(share * 10_001)
    shift = (redrawn - labels)[changed] % 5  # uniform over the four other classes
    assert stats.chisquare(torch.bincount(shift, minlength=5)[1:]).pvalue > 1e-3
    anywhere = corruption.redraw(labels, share, 5, seed=0)
    assert (anywhere != labels)[~changed].sum() == 0  # the same images are chosen


def test_redrawing_over_all_classes_is_uniform_over_them() -> None:
    labels = torch.full((10_000,), 3)
    redrawn = corruption.redraw(labels, 0.999, 20, seed=0)
    assert (
        stats.chisquare(torch.bincount(redrawn, minlength=20).double() - 10 * F.one_hot(torch.tensor(3), 20)).pvalue
        > 1e-3
    )


def test_runs_cut_short_are_states_of_one_training() -> None:
    """The baseline is only trained to its end; an epoch outside of the training is told."""
    whole = recipes.table1("quick", ["cifar_resnet"], seeds=[0])
    runs = recipes.after_epochs(whole, [3, 1, 6, 3])
    assert [(run.method, run.epochs) for run in runs] == [
        ("baseline", 6), ("dsl", 1), ("dsl", 3), ("dsl", 6), ("dhm", 1), ("dhm", 3), ("dhm", 6),
    ]  # fmt: skip
    assert [run for run in runs if run.epochs == 6] == whole
    for epoch in (0, 7):
        with pytest.raises(dhm.InputError, match=r"epochs must lie between 1 and 6, not"):
            recipes.after_epochs(whole, [epoch])
    with pytest.raises(dhm.InputError, match="probabilities must hold one below 1"):
        recipes.appendix_d("quick", [1.0])


def test_parameters_that_are_empty_leave_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert presets.given(dataset="", image_size=0) == {}
    assert presets.given(dataset="x", image_size=0) == {"dataset": "x"}
    monkeypatch.setenv("DHM_PRESET", "paper")
    assert presets.resolve("") == "paper"
    with pytest.raises(dhm.InputError, match="preset must be one of quick, smoke, not 'paper'"):
        presets.resolve("", among=presets.SMALL)


def test_share_really_changed_is_in_the_record(tmp_path: Path) -> None:
    """The same for all methods of a seed, another for another seed; validation labels stay, "rest" among them."""
    settings = {"label_noise": 0.5, "test_on": "val+rest", "epochs": 1}
    configs = [small_config(method=m, seed=s, **settings) for s in (0, 1) for m in ("baseline", "dhm")]
    clean = load(small_config(test_on="val+rest"))
    seen = [load(config) for config in configs]
    assert all(torch.equal(data.test.labels, clean.test.labels) for data in seen)
    assert torch.equal(seen[0].train.labels, seen[1].train.labels)
    assert not torch.equal(seen[0].train.labels, seen[2].train.labels)
    record = train(configs[0], tmp_path)
    changed = (seen[0].train.labels != clean.train.labels).double().mean().item()
    assert record.result["data"]["wrong_labels"] == pytest.approx(changed)
    assert record.environment[0]["data"] == record.result["data"]
    exact = load(small_config(label_noise=0.25, label_noise_excludes_truth=True)).summary()["wrong_labels"]
    assert exact == 0.25


def test_every_ratio_is_a_row_of_its_own() -> None:
    rows = [wrong_labels.network_at("net", ratio) for ratio in (0.0, 0.001, 0.002, 0.12, 0.125, 0.29)]
    shares = [row.removeprefix("net, ").removesuffix(" of labels redrawn") for row in rows]
    assert shares == ["net", "0.1%", "0.2%", "12%", "12.5%", "29%"]


def test_streamed_images_have_the_same_wrong_labels() -> None:
    resident, streamed = (
        load(dhm.Config(image_size=28, label_noise=0.2, augment=augment)) for augment in ("crop", "scale")
    )
    assert torch.equal(resident.train.labels, streamed.train.labels)
    assert torch.equal(resident.test.labels, streamed.test.labels)


def test_kept_runs_stand_under_their_data_set(tmp_path: Path) -> None:
    assert wrong_labels.by_dataset(dhm.load_runs(tmp_path)) == {}
    noisy = small_config(experiment="c1-corrupt-labels", label_noise=0.5, epochs=2, train_per_class=16)
    others = [noisy.replace(seed=1), noisy.replace(experiment="c2-clean-labels", label_noise=0.0),
              noisy.replace(experiment="g", options={"depth": 14}, label_noise=0.0),
              noisy.replace(experiment="c2-clean-labels", label_noise=0.0, epochs=1)]  # fmt: skip
    for config in (noisy, *others):
        train(config, tmp_path)
    found = wrong_labels.by_dataset(dhm.load_runs(tmp_path))
    assert list(found) == ["full runs, fashion-mnist-mini"]
    runs = wrong_labels.by_ratio(found["full runs, fashion-mnist-mini"])
    row = "cifar_resnet_depth8, 50% of labels redrawn"
    assert set(results.samples(runs)) >= {(row, "dhm"), ("cifar_resnet_depth8", "dhm")}
    assert results.samples(runs)[row, "dhm"].n == 2
    assert len(runs) == 3  # clean runs only where nothing else differs
    records = [dhm.RunRecord.read(folder) for folder in runs["folder"]]
    panels = wrong_labels.curves({"kept": runs})
    assert {title: len(variants["dhm"]) for title, variants in panels.items()} == {f"kept\n{row}": 2}
    (ax,) = plots.ranges(panels).axes
    values = [[100 - line["test"]["B0"]["top1_error"] for line in metrics] for metrics in panels[f"kept\n{row}"]["dhm"]]
    means = [line.get_ydata() for line in ax.lines if line.get_linewidth() > 1]
    np.testing.assert_allclose(means[1], np.mean(values, axis=0))
    edges = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (np.min(values), np.max(values))
    assert wrong_labels.shares(records).loc[0.0].dropna().tolist() == ["0.0000"]


# Appendix F


def test_interaction_is_that_of_a_linear_model() -> None:
    """Value and standard error are those of least squares, which pools variances but for cells of equal size sums
    them alike; the degrees of freedom are Satterthwaite's, written out."""
    rng = np.random.default_rng(0)
    cells = {(a, b): rng.normal(20 - a - 0.5 * b, 0.2 + 0.1 * a, 5) for a in (0, 1) for b in (0, 1)}
    sample = {key: Sample.of(list(values)) for key, values in cells.items()}
    ours = interaction("x", (sample[0, 0], sample[1, 0]), (sample[0, 1], sample[1, 1]))
    data = pd.DataFrame([(y, a, b) for (a, b), values in cells.items() for y in values], columns=["y", "a", "b"])
    fitted = ols("y ~ a * b", data).fit()
    assert ours.value == pytest.approx(-fitted.params["a:b"])
    variances = [np.var(values, ddof=1) for values in cells.values()]
    freedom = 4 * sum(variances) ** 2 / sum(v**2 for v in variances)
    assert ours.high - ours.value == pytest.approx(stats.t.ppf(0.975, freedom) * fitted.bse["a:b"])
    assert ours.high - ours.value == pytest.approx(ours.value - ours.low)


def test_interaction_of_two_certain_cells_is_welchs_test() -> None:
    first, second = Sample(20.0, 0.3, 5), Sample(18.0, 0.5, 4)
    certain = Sample(19.0, 0.0, 5)
    ours = interaction("x", (certain, certain), (first, second))
    theirs = stats.ttest_ind_from_stats(20.0, 0.3, 5, 18.0, 0.5, 4, equal_var=False)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.value, ours.word) == (2.0, "larger")
    assert interaction("x", (Sample(1.0, np.nan, 1), certain), (first, second)).word == "not told apart"


def test_rows_are_crossed_with_their_plain_network() -> None:
    """The paper's dropout, and its corrupt labels against the clean ones; a row without all four cells has none."""
    printed = {**results.published("table1"), **results.published("appendix_f")}
    (dropout,) = factorial.crossed(printed, factorial.without_dropout)
    assert (dropout.label, dropout.word) == ("wrn28_10_dropout0.3", "not told apart")
    assert dropout.value == pytest.approx((18.698 - 16.790) - (19.024 - 17.200))
    assert factorial.without_dropout("wrn_depth10_dropout0.3_width1") == "wrn_depth10_width1"
    noisy = {**results.published("table1"), **results.missed(results.published("appendix_e", "top1_accuracy"))}
    margins = factorial.crossed(noisy, wrong_labels.clean_network)
    assert [margin.under for margin in margins] == pytest.approx([74.528 - 71.122, 64.226 - 61.268])
    assert list(factorial.table({"paper": margins})["the gain is"]) == ["larger", "larger"]
    growth = factorial.between(noisy, *(margin.label for margin in margins))
    assert growth.value == pytest.approx((64.226 - 61.268) - (74.528 - 71.122))
    assert growth.label == f"{margins[1].label} against {margins[0].label}"
    falls = wrong_labels.falls(noisy, ["wrn28_10", *(margin.label for margin in margins)])
    assert falls == pytest.approx([100 - 71.122 - 19.024, 71.122 - 61.268])


def test_runs_of_the_appendices_are_named_and_shared_with_table_1() -> None:
    table1 = {run.name for run in recipes.table1("quick")}
    called = {}
    for recipe in (recipes.appendix_d, recipes.appendix_e, recipes.appendix_f, recipes.appendix_g):
        runs = recipe("quick")
        assert len({run.name for run in runs}) == len(runs)
        assert {run.name in table1 for run in runs if run.experiment == "table1"} == {True}
        assert {run.name in table1 for run in runs if run.experiment != "table1"} == {False}
        called[recipe.__name__] = list(dict.fromkeys(map(spoken, names(runs))))
    assert called == {
        "appendix_d": ["baseline", "DSL", "DHM", "DHM (Bernoulli 0.5)"],
        "appendix_e": ["baseline", "DHM"],
        "appendix_f": ["baseline", "DHM"],
        "appendix_g": ["baseline", "DSL", "DHM", "DML", "baseline (equal FLOPs)"],
    }
    assert [run.arch for run in recipes.appendix_e("paper")][:1] == ["wrn28_10"]
    assert {run.label_noise for run in recipes.appendix_e("paper")} == {0.0, 0.2, 0.5}
    assert {run.options.get("dropout", 0.0) for run in recipes.appendix_f("paper")} == {0.0, 0.3}
