"""The protocol's verdicts, what is kept of a run, and the committed records themselves."""

import datetime
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import small_config, write_run
from scipy import stats

import dhm
from dhm import options, paths
from dhm.__main__ import main, parser
from dhm.analysis.evidence import kept, measures, protocol, single_runs
from dhm.analysis.evidence.results import published
from dhm.analysis.features import agreement, correlation
from dhm.analysis.features.gradients import consistency, held_out
from dhm.analysis.variants import spoken
from dhm.data import load_test
from dhm.paper import recipes
from dhm.records.record import RunRecord
from dhm.records.store import find
from dhm.training import grid

RECORDS = sorted(file.parent for file in paths.records_dir().rglob("config.json"))
RNG = np.random.default_rng(0)


def made_up(folder: Path, errors: dict[str, list[float]]) -> pd.DataFrame:
    """Finished runs of C1 with these errors, one a seed."""
    for method, runs in errors.items():
        for seed, error in enumerate(runs):
            write_run(folder, small_config(experiment="c1-corrupt-labels", method=method, seed=seed), error)
    return dhm.load_runs(folder)


def test_verdicts_follow_from_the_runs(tmp_path: Path) -> None:
    """Three rows of a table of six planned: Holm by hand, at the worst the missing three can do."""
    errors = {"baseline": [66.1, 66.9, 66.4, 67.2, 66.6], "dsl": [66.0, 66.8, 66.2, 66.9, 66.3],
              "dhm": [62.0, 62.5, 61.8, 62.4, 62.2]}  # fmt: skip
    judged = {row.gain.label: row for row in protocol.judge(made_up(tmp_path, errors))}
    pairs = [("baseline", "dhm"), ("baseline", "dsl"), ("dsl", "dhm")]
    p = sorted(stats.ttest_ind(errors[first], errors[second], equal_var=False).pvalue for first, second in pairs)
    by_hand = np.maximum.accumulate([min(1.0, (6 - i) * value) for i, value in enumerate(p)])
    found = sorted(row.gain.adjusted_p for label, row in judged.items() if label.startswith("c1"))
    assert found == pytest.approx(list(by_hand))
    best = judged["c1-corrupt-labels: DHM over baseline"]
    assert best.gain.value == pytest.approx(np.mean(errors["baseline"]) - np.mean(errors["dhm"]))
    assert best.verdict == "supported elsewhere"
    assert judged["c1-corrupt-labels: DSL over baseline"].verdict == "inconclusive"  # the paper prints no gain
    assert judged["c2-clean-labels: DHM over baseline"].verdict == "not run"


def test_missing_seeds_leave_the_verdict_open(tmp_path: Path) -> None:
    errors = {"baseline": [66.1, 66.9, 66.4], "dhm": [62.0, 62.5]}
    judged = {row.gain.label: row.verdict for row in protocol.judge(made_up(tmp_path, errors))}
    assert judged["c1-corrupt-labels: DHM over baseline"] == "incomplete (2 of 5 seeds)"
    assert judged["c1-corrupt-labels: DSL over baseline"] == "not run"


def test_every_seed_is_shown(tmp_path: Path) -> None:
    """Of ten classes guessing errs in 90 %, so that 85 is where learning has begun."""
    for seed, errors in enumerate([[90.0, 86.0, 50.0, 60.0], [90.0, 90.0, 90.0, 86.0]]):
        record = RunRecord.read(write_run(tmp_path, small_config(experiment="x", method="dhm", seed=seed), errors[-1]))
        record.write_metrics([{"test": {"B0": {"top1_error": error}}} for error in errors])
        record.write_json("result.json", {**record.result, "data": {"classes": 10}})
    table = protocol.by_seed(find(tmp_path), "x")
    assert table["epochs to leave chance", "DHM"].tolist() == ["2", "4"]
    assert table["best epoch", "DHM"].tolist() == ["50.00", "86.00"]
    assert table["last epoch", "DHM"].tolist() == ["60.00", "86.00"]
    assert set(table["last epoch", "baseline"]) == {"–"}


def test_what_has_runs(tmp_path: Path) -> None:
    """Counts by method in words, rows with runs on both sides, and gains that have an interval."""
    runs = made_up(tmp_path, {"baseline": [66.1, 66.9, 66.4], "dhm": [62.0, 62.5], "dsl": [66.0]})
    assert protocol.finished(runs) == {"c1-corrupt-labels": "3 of 5 baseline, 1 of 5 DSL, 2 of 5 DHM"}
    judged = protocol.judge(runs)
    assert len(protocol.with_runs(judged)) == 3
    gains = protocol.gains_by_experiment(judged)
    assert [gain.label for gain in gains.pop("c1-corrupt-labels")] == ["c1-corrupt-labels: DHM over baseline"]
    assert not gains
    assert protocol.finished(pd.DataFrame()) == {}
    with pytest.raises(dhm.InputError, match="which must be last or best, not 'first'"):
        protocol.judge(runs, which="first")


def test_kept_tables_over_runs(tmp_path: Path) -> None:
    """Means over seeds and runs by hand, of two experiments whose records hold a single cosine or map each."""
    matrices = RNG.normal(size=(2, 3, 3))
    for seed, (cosine, cka) in enumerate([(0.2, 0.5), (0.6, 0.7)]):
        for method in ("dsl", "dhm"):
            folder = write_run(tmp_path, small_config(experiment="x", method=method, seed=seed), 20.0)
            shift = 0.1 * (method == "dhm")
            row = {"stage": 1, "first": "B0", "second": "B1", "cosine": cosine + shift, "loss": "cross-entropy"}
            pd.DataFrame([row, {**row, "loss": "full", "cosine": -9}]).to_csv(folder / "gradients.csv", index=False)
            alike = {"layer": "descriptor", "statistic": "CKA", "observed": cka + shift}
            pd.DataFrame([alike, {**alike, "statistic": "other"}]).to_csv(folder / "likeness.csv", index=False)
            np.savez(folder / "kernels.npz", **{f"conv/{head}": matrices[seed] for head in ("B0", "B2")})
    write_run(tmp_path, small_config(experiment="y"), 20.0)
    records = list(find(tmp_path))
    gradients = kept.gradients(records)
    assert agreement.by_place(gradients).loc[("x", 1, "B0", "B1")].to_dict() == {"DSL": 0.4, "DHM": 0.5}
    assert measures.by_experiment(records, "gradient_cosine").loc[("x", "DHM")].tolist() == [0.5, 0.3, 0.7, 2]
    assert measures.by_experiment(records, "cka").loc[("x", "DSL")].tolist() == [0.6, 0.5, 0.7, 2]
    maps = kept.likeness_maps(records, "entry by entry")
    assert list(maps) == ["x"]
    expected = correlation.READINGS["entry by entry"](matrices[0], matrices[0])
    np.testing.assert_allclose(maps["x"]["conv"]["dsl"], expected)


def test_without_records_everything_is_not_run() -> None:
    judged = protocol.judge(pd.DataFrame())
    assert len(judged) == 18
    assert {row.verdict for row in judged} == {"not run"}
    assert len(protocol.table(judged)) == 18
    assert protocol.table(protocol.with_runs(judged)).empty


def test_protocol_says_the_same_as_its_table() -> None:
    """A row of one of Table 1's networks by that table, any other by the page."""
    page, printed = (paths.records_dir() / "README.md").read_text(), published("table1")
    for row in protocol.comparisons():
        sides = [printed.get((row.experiment.removeprefix("g-"), method)) for method in (row.first, row.second)]
        if all(sides):
            assert row.paper_gain == pytest.approx(sides[0].mean - sides[1].mean)
        else:
            assert row.paper_gain is None or f"{row.paper_gain:.3f}" in page
    assert {row.experiment.partition("-")[0] for row in protocol.comparisons()} == {"c1", "c2", "g"}


def test_kept_records_hold_what_the_checkpoint_tells(tmp_path: Path) -> None:
    run = dhm.fit(small_config(epochs=1), runs_dir=tmp_path / "runs", accelerator="cpu", progress=False)
    record = kept.keep(run, tmp_path / "records")
    names = {file.name for file in record.folder.iterdir()}
    assert names == {"config.json", "env.json", "metrics.jsonl", "result.json", "SHA256SUMS", "predictions-last.npz",
                     "predictions-best.npz", "gradients.csv", "likeness.csv", "kernels.npz"}  # fmt: skip
    assert record.result == run.result
    net = dhm.load_trained(run)
    for layer, pair in kept.kernels(record).items():
        for ours, theirs in zip(pair, correlation.paired_layers(net)[layer], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    batches = held_out(load_test(run.config)[0], kept.MICRO, kept.HELD_OUT)
    own = consistency(net, batches, dhm.DHMLoss("dsl"), "batch")
    table = kept.gradients([record])
    table = table[table["loss"] == "cross-entropy"]
    np.testing.assert_allclose(table["cosine"], own["cosine"], rtol=1e-4)
    assert set(kept.likenesses([record])["statistic"]) >= {"CKA", "best matching: correlation"}
    before = (record.folder / "gradients.csv").stat().st_mtime_ns
    kept.keep(run, tmp_path / "records")
    assert (record.folder / "gradients.csv").stat().st_mtime_ns == before


RESNET = {"arch": "imagenet_resnet", "options": {"depth": 10, "base": 8}}
MOBILENET = {"arch": "mobilenet", "options": {"width": 0.25}, "train_per_class": None}


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        ({"branches": [{"name": "B1", "root": 2, "depths": [1], "width": 2}]}, {"gradients.csv"}),
        ({"branches": [{"name": "B2", "root": 1}]}, {"gradients.csv"}),
        ({"branches": "twin"}, set()),
        ({"method": "baseline"}, set()),
        ({**RESNET, "augment": "scale", "image_size": 28}, set()),
        ({**MOBILENET, "dataset": "pedestrians", "classes": 8, "image_size": 64}, set()),
    ],
    ids=["B1 alone", "bare B2", "twin", "plain", "streamed", "search"],
)
def test_any_finished_run_is_kept(changes: dict, measured: set[str], tmp_path: Path) -> None:
    """With what can be measured on it, and nothing that lay about in its folder."""
    run = dhm.fit(small_config(epochs=1, **changes), runs_dir=tmp_path / "runs", accelerator="cpu", progress=False)
    (run.folder / "notes.txt").write_text("mine")
    (run.folder / ".last.pt.4242.partial").write_bytes(b"half")
    record = kept.keep(run, tmp_path / "records")
    assert {file.name for file in record.folder.iterdir()} == {*kept.FILES, "SHA256SUMS", *measured}


def test_runs_whose_folders_were_renamed_are_each_kept(tmp_path: Path) -> None:
    configs = [small_config(epochs=1, method="baseline", seed=seed) for seed in range(2)]
    for config in configs:
        run = dhm.fit(config, runs_dir=tmp_path / "runs", accelerator="cpu", progress=False)
        (tmp_path / f"seed{config.seed}").mkdir()
        renamed = RunRecord.read(run.folder.rename(tmp_path / f"seed{config.seed}" / "run"))
        assert kept.keep(renamed, tmp_path / "records").config == config
    assert len(dhm.load_runs(tmp_path / "records")) == 2


def test_unfinished_runs_are_not_kept(tmp_path: Path) -> None:
    record = RunRecord.of(small_config(), tmp_path)
    record.create()
    with pytest.raises(dhm.InputError, match="not finished"):
        kept.keep(record, tmp_path / "records")


def test_held_out_images_come_from_all_classes() -> None:
    """Sets read from folders are sorted by class; a first few batches in order would hold one class each."""
    images = load_test(small_config(classes=10))[0]
    ordered = dhm.data.Images(images.pixels, images.labels.sort().values, images.mean, images.std)
    labels = [y for _, y in held_out(ordered, 32, 96)]
    assert [len(y) for y in labels] == [32, 32, 32]
    assert all(len(y.unique()) > 5 for y in labels)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=paths.root(), capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_committed_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is made again from its configuration, from which the command line trains the same run; it is whole."""
    record = RunRecord.read(folder)
    assert record.folder.name == record.config.name
    assert record.result is not None
    assert len(record.metrics) == record.config.epochs
    for which in ("last", "best"):
        for head, figures in record.predictions(which).summary().items():
            assert figures == pytest.approx(record.result[which]["heads"][head], rel=1e-5)
    assert not list(folder.glob("*.pt"))
    asked = []
    monkeypatch.setattr(grid, "fit_all", lambda configs, **_: asked.extend(configs) or [])
    assert main(["train", "--config", str(folder / "config.json")]) == 0
    assert asked == [record.config]


def test_committed_records_are_of_the_protocol() -> None:
    planned = {row.experiment for row in protocol.comparisons()} | {"table1"}
    assert {record.config.experiment for record in find(paths.records_dir())} <= planned
    size = sum(file.stat().st_size for folder in RECORDS for file in folder.iterdir())
    assert size < 20e6


def asked_by(target: str) -> list[dhm.Config]:
    """The runs a target of make trains."""
    line = subprocess.run(["make", "-n", target], cwd=paths.root(), capture_output=True, text=True).stdout
    return [
        config
        for command in re.findall(r"-m dhm (train .+?)(?= &&|\))", line.replace("\\\n", " "))
        for config in options.configs_from(parser().parse_args(shlex.split(command)))
    ]


def test_make_trains_the_records() -> None:
    """What `make evidence-cpu` asks for is what data/records holds, as far as it has been run."""
    asked = asked_by("evidence-cpu")
    assert len(asked) == 2 * 3 * protocol.SEEDS
    kept_here = {record.config.name for record in find(paths.records_dir()) if record.config.experiment[0] == "c"}
    assert kept_here <= {config.name for config in asked}


def test_make_trains_the_papers_row_in_the_order_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("bf16-mixed", "32-true"):
        monkeypatch.setattr(options, "as_begun", lambda config, *_, p=precision: config.replace(precision=p))
        methods = ("baseline", "dhm", "dsl")
        assert asked_by("evidence-cifar") == recipes.table1("paper", ["resnet32"], methods, precision=precision)


def test_results_tell_what_was_measured() -> None:
    """Gain and verdict of every row of the protocol that has runs, as the statistics say them."""
    section = (paths.root() / "docs" / "results.md").read_text()
    for row in protocol.judge(dhm.load_runs(paths.records_dir())):
        if row.verdict != "not run":
            first, second = (spoken(name) for name in (row.comparison.first, row.comparison.second))
            line = next(
                x
                for x in section.splitlines()
                if x.startswith(f"| {row.comparison.experiment}, {second} over {first} ")
            )
            assert f" {row.gain.value:+.2f} " in line
            assert f" {row.best:+.2f} " in line
            assert row.gain.low < -1e9 or f"[{row.gain.low:+.2f}, {row.gain.high:+.2f}]" in line
            assert row.verdict in line


def test_results_tell_the_runs_of_the_paper_one_by_one() -> None:
    """Errors, gains, images and words of P1's runs stand on the page as the statistics say them."""
    lines = (paths.root() / "docs" / "results.md").read_text().splitlines()
    for table in single_runs.papers_row(dhm.load_runs(paths.records_dir())).values():
        for (_, seed, what), row in table.iterrows():
            line = next(line for line in lines if line.startswith(f"| seed {seed}, {what} |"))
            assert [cell for cell in row if f" {cell} |" not in line] == []


@pytest.mark.skipif(not RECORDS, reason="no run is committed yet")
def test_protocol_is_older_than_every_run() -> None:
    starts, missing = [], set()
    for folder in RECORDS:
        for entry in json.loads((folder / "env.json").read_text()):
            starts.append(datetime.datetime.fromisoformat(entry["started"]))
            if _git("cat-file", "-t", entry["commit"]) != "commit":
                missing.add(entry["commit"])
    if missing:
        pytest.skip(f"the history of this clone lacks {', '.join(sorted(missing))}, which the runs were made at")
    first = _git("log", "--diff-filter=A", "--format=%cI", "--", "data/records/README.md").splitlines()[-1]
    assert datetime.datetime.fromisoformat(first) < min(starts)
