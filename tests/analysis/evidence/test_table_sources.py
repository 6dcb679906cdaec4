"""The sources of a table: which runs stand under which title, and what may be said of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import small_config, write_run

import dhm
from dhm.analysis.evidence import results, sources, wrong_labels
from dhm.paper import recipes

OWN = "CIFAR-100, the paper's recipe"
ERRORS = {"baseline": [31.0, 31.4, 30.8, 31.1, 31.3], "dsl": [30.9, 31.0, 30.7, 31.2, 30.8],
          "dhm": [28.1, 28.4, 28.0, 28.2, 28.6]}  # fmt: skip
NET = "resnet32: DHM over baseline"


def table1_runs(folder: Path, preset: str = "paper", arch: str = "resnet32", **changes: object) -> None:
    for config in recipes.table1(preset, [arch], seeds=range(5)):
        write_run(folder, config.replace(**changes), ERRORS[config.method][config.seed])


@pytest.fixture
def made(tmp_path: Path) -> list[dhm.RunRecord]:
    """Two smoke runs of each method, on the small images."""
    configs = recipes.table1("smoke", ["cifar_resnet"], seeds=[0, 1])
    return [dhm.RunRecord.read(write_run(tmp_path / "made", config, 20.0 + config.seed)) for config in configs]


@pytest.fixture
def gather(tmp_path: Path, made: list[dhm.RunRecord]) -> Callable[..., sources.Sources]:
    def call(recipe: sources.Recipe = recipes.table1, **options: object) -> sources.Sources:
        return sources.gather(recipe, results.published("table1"), made, "smoke", folder=tmp_path / "kept", **options)

    return call


def test_without_records_stand_the_paper_and_the_run_just_made(gather: Callable[..., sources.Sources]) -> None:
    found = gather()
    assert list(found.figures()) == ["paper, CIFAR-100", "smoke run, fashion-mnist-mini"]
    assert found.measured()["smoke run, fashion-mnist-mini"]["cifar_resnet_depth8", "dhm"].mean == 20.5
    assert found.own_data == frozenset()
    assert "no evidence" in found.caution
    (words,) = found.verdicts().values()
    assert set(words.values()) == {"incomplete (2 of 5 seeds)"}


@pytest.mark.parametrize("place", ["cifar100", "/scratch/sets/cifar100"])
def test_the_papers_own_runs_have_a_title_and_the_papers_words(
    tmp_path: Path, gather: Callable[..., sources.Sources], place: str
) -> None:
    """Wherever the data set lies and in whatever arithmetic; one and the same seed counts once."""
    table1_runs(tmp_path / "kept", dataset=place, precision="bf16-mixed")
    write_run(tmp_path / "kept", recipes.table1("paper", ["resnet32"], ["dhm"])[0], 28.15)
    found = gather()
    assert list(found.runs) == [OWN, "smoke run, fashion-mnist-mini"]
    assert found.own_data == {OWN}
    assert found.measured()[OWN]["resnet32", "dhm"].n == 5
    assert found.verdicts()[OWN][NET] == "reproduced"
    gain = found.gains()[OWN][0]
    assert gain.value == pytest.approx(np.mean(ERRORS["baseline"]) - found.measured()[OWN]["resnet32", "dhm"].mean)
    shown = results.error_table(found.figures(), found.verdicts())
    assert shown.loc[(OWN, "resnet32"), "verdict on DHM"] == "reproduced"
    assert found.tables()[OWN].loc[NET, "verdict"] == "reproduced"


def test_the_released_recipe_is_told_apart(tmp_path: Path, gather: Callable[..., sources.Sources]) -> None:
    """Of WRN, whose released weight decay differs; for ResNets both recipes are one."""
    table1_runs(tmp_path / "kept", "released", "wrn16_8")
    table1_runs(tmp_path / "kept", "released")
    found = gather()
    assert list(found.runs)[:2] == [OWN, "CIFAR-100, the released program's recipe"]
    assert set(found.runs[OWN]["network"]) == {"resnet32"}
    assert found.own_data == set(found.runs) - {"smoke run, fashion-mnist-mini"}


@pytest.mark.parametrize(
    ("changes", "own"),
    [({"epochs": 100}, True), ({"classes": 20}, False), ({"train_per_class": 50}, False), ({"label_noise": 0.5}, False),
     ({"dataset": "/scratch/not-cifar100"}, False), ({"dataset": "cifar100-subset"}, False)],
)  # fmt: skip
def test_own_data_is_the_whole_set_with_its_labels(
    tmp_path: Path, gather: Callable[..., sources.Sources], changes: dict, own: bool
) -> None:
    """Judged by the data set's name, not by whether the word stands somewhere in it."""
    table1_runs(tmp_path / "kept", experiment="mine", **changes)
    found = gather()
    (title,) = set(found.runs) - {"smoke run, fashion-mnist-mini"}
    assert title.startswith("full runs, mine, ")
    assert (title in found.own_data) == own
    assert found.verdicts()[title][NET] == ("reproduced" if own else "supported elsewhere")


def test_a_full_run_on_a_folder_of_the_papers_data_is_its_own(tmp_path: Path) -> None:
    configs = recipes.table1("paper", ["resnet32"], dataset="/scratch/cifar100")
    made = [dhm.RunRecord.read(write_run(tmp_path, c, ERRORS[c.method][c.seed])) for c in configs]
    for preset, own in (("paper", True), ("quick", False)):
        found = sources.of_runs(recipes.table1, results.published("table1"), made, preset)
        assert (f"{preset} run, cifar100" in found.own_data) == own
    nothing = sources.of_runs(recipes.table1, results.published("table1"), [], "paper")
    assert not nothing.runs


def test_what_belongs_to_a_table(tmp_path: Path, gather: Callable[..., sources.Sources]) -> None:
    """By experiment and data set; other families, runs without the figure and groups not asked for stay out."""
    kept = tmp_path / "kept"
    write_run(kept, small_config(experiment="one", dataset="/elsewhere/fashion-mnist-mini"), 20.0)
    write_run(kept, small_config(experiment="one", arch="resnet18", options={}), 21.0)
    write_run(kept, small_config(experiment="two", mimic_probability=0.5), 22.0)
    titles = ["full runs, one, fashion-mnist-mini", "full runs, two, fashion-mnist-mini"]
    found = gather()
    assert list(found.runs)[:-1] == titles
    assert found.runs[titles[0]]["last/B0/top1_error"].tolist() == [20.0]
    drawn = gather(recipes.appendix_d, having=lambda runs: (runs["mimic_probability"] < 1).any())
    assert list(drawn.runs)[:-1] == titles[1:]
    write_run(kept, small_config(experiment="three", label_noise=0.5), 23.0)
    corrupt = gather(recipes.appendix_e, rows=wrong_labels.by_ratio, others=wrong_labels.by_dataset)  # of WRN-28-10
    runs = corrupt.runs["full runs, fashion-mnist-mini"]
    assert "cifar_resnet_depth8, 50% of labels redrawn" in set(runs["network"])
    assert list(gather(recipes.table3, metric="mAP").runs) == ["smoke run, fashion-mnist-mini"]


def test_runs_of_the_protocol_have_its_words(tmp_path: Path, gather: Callable[..., sources.Sources]) -> None:
    """Holm counts the rows of the protocol's table, not those of this one."""
    for method, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            write_run(tmp_path / "kept", small_config(experiment="c2-clean-labels", method=method, seed=seed), error)
    found = gather()
    title = "full runs, c2-clean-labels, fashion-mnist-mini"
    label = "cifar_resnet_depth8: DHM over baseline"
    row = next(row for row in found.judged if row.gain.label == "c2-clean-labels: DHM over baseline")
    gain = next(gain for gain in found.gains()[title] if gain.label == label)
    assert (gain.adjusted_p, gain.low) == (row.gain.adjusted_p, row.gain.low)
    alone = next(gain for gain in results.gains(found.measured()[title]) if gain.label == label)
    assert gain.adjusted_p == pytest.approx(2 * alone.adjusted_p)  # six rows planned, of which three stand here
    assert found.verdicts()[title][label] == row.verdict


def test_figures_of_which_more_is_better(tmp_path: Path) -> None:
    """A rise of mAP is a gain, and the paper's own gain is looked up with the same sign."""
    made = []
    for config in recipes.table3("paper", ["resnet50"], ["market1501"], seeds=range(5)):
        record = dhm.RunRecord.read(write_run(tmp_path, config, 0.0))
        value = {"baseline": 60.0, "dsl": 61.0, "dhm": 67.0}[config.method] + 0.1 * config.seed
        place = {"epoch": 0, "heads": {"B0": {"mAP": value, "rank1": value}}}
        record.write_json("result.json", {"last": place, "best": place, "seconds": 1.0})
        made.append(record)
    printed = results.published("table3", "mAP")
    found = sources.gather(
        recipes.table3, printed, made, "paper", metric="mAP", rows=results.by_dataset, folder=tmp_path
    )
    label = "resnet50 on market1501: DHM over baseline"
    for title in ("Market-1501, the paper's recipe", "paper run, market1501"):
        assert next(gain.value for gain in found.gains()[title] if gain.label == label) == pytest.approx(7.0)
        assert found.verdicts()[title][label] == "reproduced"
