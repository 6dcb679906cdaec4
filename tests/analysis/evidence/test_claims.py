"""The claims file, its judgements against hand-made records, and a page that opens whatever lies in the folders."""

import ast
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import papermill
import pytest
from conftest import small_config, write_run
from scipy import stats

import dhm
from dhm import __main__ as cli
from dhm import notebook, paths
from dhm.analysis.evidence import claims, judgement, measures, proofs, protocol, report, shelf
from dhm.analysis.evidence.results import published
from dhm.analysis.networks import cost
from dhm.analysis.theory import smooth
from dhm.flops import flops
from dhm.paper import numbers, recipes

CLAIMS = claims.read()
NOTHING = shelf.Shelf({}, dhm.load_runs(paths.root() / "tests"), [], [], [])


@pytest.fixture(autouse=True)
def no_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs take seconds; they have a test of their own, below."""
    for kind in list(claims.PROOFS):
        monkeypatch.setitem(claims.PROOFS, kind, lambda: ("", "holds"))  # type: ignore[attr-defined]


def test_what_the_project_holds_is_read_the_same_in_any_locale() -> None:
    """An old one, whose files are of ASCII."""
    program = (
        "import hashlib; from dhm import notebook; from dhm.analysis.evidence import claims, protocol; "
        "told = repr((claims.read(), protocol.comparisons(), notebook.contents())); "
        "print(hashlib.sha256(told.encode()).hexdigest())"
    )
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    told = subprocess.run([sys.executable, "-c", program], env={**os.environ, **old}, capture_output=True, check=True)
    here = repr((CLAIMS, protocol.comparisons(), notebook.contents()))
    assert told.stdout.decode().strip() == hashlib.sha256(here.encode()).hexdigest()


def table1_runs(folder: Path, errors: dict[str, list[float]], preset: str = "paper") -> None:
    for config in recipes.table1(preset, ["resnet32"], tuple(errors), seeds=range(5)):
        if config.seed < len(errors[config.method]):
            write_run(folder, config, errors[config.method][config.seed])


def finding(findings: list[claims.Finding], name: str) -> claims.Finding:
    return next(found for found in findings if found.claim.id == name)


def test_every_claim_is_well_formed() -> None:
    """Ids differ, tables and networks exist, notebooks are there, and every printed row of Tables 1-3 is claimed."""
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.notebook in notebook.list_notebooks(), claim
        assert claim.place.startswith(("Section ", "Appendix ", "Table ")), claim
        if claim.kind in ("row", "every"):
            assert claims.networks(claim), claim
        if claim.kind == "row":
            assert len(claims.networks(claim)) == 1
    for table, metrics in (
        ("table1", ["top1_error"]),
        ("table2", ["top1_error", "top5_error"]),
        ("table3", ["mAP", "rank1"]),
    ):
        for metric in metrics:
            networks = {number.network for number in numbers.table(table) if number.metric == metric}
            rows = [
                c
                for c in CLAIMS
                if (c.kind, c.tables, c.metric) == ("row", (table,), metric) and c.place.startswith("Table")
            ]
            assert sorted(claims.networks(c)[0] for c in rows) == sorted(n for n in networks for _ in range(3))


def test_a_wrong_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper").mkdir()
    text = paths.embedded("paper/claims.csv").read_text().replace(",every,", ",evry,", 1)
    (tmp_path / "paper" / "claims.csv").write_text(text)
    monkeypatch.setattr(paths, "embedded", lambda name: tmp_path / name)
    with pytest.raises(dhm.InputError, match=r"kind must be one of .* not 'evry'"):
        claims.read()


def test_without_records_everything_that_needs_training_is_not_run() -> None:
    for found in judgement.judge(CLAIMS, NOTHING):
        decided = found.claim.kind in ("same", *claims.PROOFS)
        assert (found.verdict == "not run") != decided, found
    assert "all" in report.summary(judgement.judge(CLAIMS, NOTHING)).index


def test_what_the_papers_numbers_carry() -> None:
    findings = judgement.judge(CLAIMS, NOTHING)
    assert finding(findings, "title-dsl").carried == "beyond chance in 1 of 7, positive in 7"
    assert finding(findings, "title-dhm").carried == "beyond chance in 7 of 7, positive in 7"
    assert finding(findings, "reid-six").carried == "above +6 in 1 of 2 as printed"
    assert finding(findings, "imagenet-one-point").carried == "above +1 in 2 of 2 as printed"
    assert finding(findings, "reid-dsl").carried == "above -0.5 in 1 of 4 as printed"
    assert finding(findings, "reid-dsl-rank1").carried == "above -0.5 in 3 of 4 as printed"
    same = finding(findings, "resnet18-number")
    assert same.verdict == "misprint"
    assert "28.714 (table2)" in same.printed
    assert "28.814 (table4)" in same.printed


def test_runs_by_the_papers_recipe_are_judged(tmp_path: Path) -> None:
    """Against scipy by hand: three of 21 planned rows, so the smallest p counts 21 times, and so on."""
    rng = np.random.default_rng(0)
    errors = {"baseline": list(rng.normal(30.3, 0.2, 5)), "dsl": list(rng.normal(30.2, 0.25, 5)),
              "dhm": [27.25, 27.6, 27.4, 27.5, 27.3]}  # fmt: skip
    table1_runs(tmp_path, errors)
    found = shelf.gather([tmp_path])
    assert len(found.of_the_paper["table1"]) == 15
    findings = judgement.judge(CLAIMS, found)
    assert " 15 by the paper's recipe" in report.opening(findings, found)  # appendix D asks for the same runs
    best = finding(findings, "table1-resnet32-top1-dhm-baseline")
    assert best.verdict == "reproduced"
    pairs = {("baseline", "dhm"), ("dsl", "dhm"), ("baseline", "dsl")}
    p = {pair: stats.ttest_ind(errors[pair[0]], errors[pair[1]], equal_var=False).pvalue for pair in pairs}
    rank = sorted(p, key=p.get).index(("baseline", "dhm"))
    a, b = np.array(errors["baseline"]), np.array(errors["dhm"])
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(1 - 0.05 / (21 - rank))
    assert best.ours == f"{a.mean() - b.mean():+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
    assert finding(findings, "table1-resnet32-top1-dsl-baseline").verdict == "inconclusive"
    assert finding(findings, "title-dhm").verdict == "inconclusive: 1 reproduced, 6 not run"
    same = finding(findings, "table1-resnet32-dhm-error")
    assert same.verdict == "the same within 0.5"
    assert same.ours.endswith("(n=5)")


def test_a_gain_below_half_of_the_papers_contradicts(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table1_runs(
        tmp_path, {"baseline": list(rng.normal(30.3, 0.1, 5)), "dhm": list(rng.normal(30.2, 0.1, 5))}, "released"
    )
    findings = judgement.judge(CLAIMS, shelf.gather([tmp_path]))
    assert finding(findings, "table1-resnet32-top1-dhm-baseline").verdict == "contradicted"
    assert finding(findings, "dhm-baseline").verdict == "contradicted: 1 contradicted, 6 not run"
    assert finding(findings, "table1-resnet32-dhm-error").verdict == "different"


def test_appendices_are_judged_beside_table_1(tmp_path: Path) -> None:
    """Corrupt labels: a gain of its own, and the difference of two gains against one by hand."""
    rng = np.random.default_rng(2)
    means = {(0.0, "baseline"): 19.0, (0.0, "dhm"): 17.2, (0.5, "baseline"): 38.7, (0.5, "dhm"): 35.0}
    errors: dict[tuple[float, str], list[float]] = {key: [] for key in means}
    for config in recipes.appendix_e("paper", ratios=(0.0, 0.5)):
        errors[config.label_noise, config.method].append(
            means[config.label_noise, config.method] + 0.2 * rng.standard_normal()
        )
        write_run(tmp_path, config, errors[config.label_noise, config.method][-1])
    findings = judgement.judge(CLAIMS, shelf.gather([tmp_path]))
    assert finding(findings, "corrupt-50").verdict == "reproduced"
    assert finding(findings, "corrupt-20").verdict == "not run"
    assert finding(findings, "corrupt-20").printed == "+3.41"
    larger = finding(findings, "corrupt-larger-50")
    mean = {key: np.mean(values) for key, values in errors.items()}
    by_hand = mean[0.5, "baseline"] - mean[0.5, "dhm"] - (mean[0.0, "baseline"] - mean[0.0, "dhm"])
    assert larger.ours.startswith(f"{by_hand:+.2f} [")
    assert larger.verdict == "reproduced"


def test_dropout_is_compared_across_networks(tmp_path: Path) -> None:
    means = {("wrn28_10", "baseline"): 19.0, ("wrn28_10_dropout0.3", "baseline"): 18.7,
             ("wrn28_10", "dhm"): 17.2, ("wrn28_10_dropout0.3", "dhm"): 17.25}  # fmt: skip
    for config in recipes.appendix_f("paper"):
        write_run(tmp_path, config, means[config.network, config.method] + 0.01 * config.seed)
    findings = judgement.judge(CLAIMS, shelf.gather([tmp_path]))
    assert finding(findings, "dropout").verdict == "reproduced"
    assert finding(findings, "dropout").ours.startswith("+0.30 [")
    assert finding(findings, "dropout-complementary").verdict == "contradicted"
    assert finding(findings, "dropout-dhm").verdict == "reproduced"


def test_measured_quantities_are_told_on_their_page_as_the_report_tells_them(tmp_path: Path) -> None:
    """Cosines 0.2 and 0.4 under DSL, 0.5 and 0.7 under DHM: 0.3 apart, Welch half width t(0.975, 2) * 0.141."""
    rows = "stage,first,second,cosine,loss\n0,B0,B1,{0},cross-entropy\n1,B0,B1,{0},cross-entropy\n1,B0,B1,-1,full\n"
    records = []
    for method, cosines in {"dsl": (0.2, 0.4), "dhm": (0.5, 0.7)}.items():
        for seed, cosine in enumerate(cosines):
            config = small_config(method=method, seed=seed, experiment="c2-clean-labels")
            records.append(dhm.RunRecord.read(write_run(tmp_path, config, 40.0)))
            (records[-1].folder / "gradients.csv").write_text(rows.format(cosine))
    found = shelf.Shelf({}, NOTHING.measured, records, [], [])
    (sentence,) = measures.sentences("gradient_consistency", found)
    half = stats.t.ppf(0.975, 2) * (2 * 0.02 / 2) ** 0.5
    interval = f"[{0.3 - half:+.3f}, {0.3 + half:+.3f}]"
    assert f"DHM minus DSL +0.300 {interval}, no verdict planned: agrees in sign" in sentence
    in_report = finding(judgement.judge(CLAIMS, found), "consistency")
    assert in_report.ours in sentence
    assert in_report.verdict in sentence
    likeness, cka = measures.sentences("figure4_correlation", found)
    assert likeness.endswith(": not run.")
    assert "CKA" in cka


def test_few_seeds_decide_nothing(tmp_path: Path) -> None:
    table1_runs(tmp_path, {"baseline": [30.3, 30.1], "dhm": [27.4, 27.6]})
    findings = judgement.judge(CLAIMS, shelf.gather([tmp_path]))
    assert finding(findings, "table1-resnet32-top1-dhm-baseline").verdict == "incomplete (2 of 5 seeds)"


def test_one_run_on_the_papers_data_does_not_hide_what_five_seeds_showed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seeds in all seven networks do come first."""
    shutil.copy(paths.records_dir() / "comparisons.csv", tmp_path)
    monkeypatch.setattr(paths, "records_dir", lambda: tmp_path)
    for method, error in {"baseline": 50.0, "dhm": 47.0}.items():
        for seed in range(5):
            write_run(tmp_path, small_config(method=method, seed=seed, experiment="c2-clean-labels"), error + seed / 10)
    table1_runs(tmp_path, {"baseline": [30.3], "dhm": [27.4]})
    found = finding(judgement.judge(CLAIMS, shelf.gather([tmp_path])), "dhm-baseline")
    assert found.verdict == (
        "supported elsewhere (c2-clean-labels); inconclusive: 1 agrees in sign (one run), 6 not run"
    )
    assert re.fullmatch(r"\+3\.00 \[.*\]; \+2\.90", found.ours)
    assert report.outcome(found.verdict) == "supported elsewhere"
    for config in recipes.table1("paper", methods=("baseline", "dhm"), seeds=range(5)):
        write_run(tmp_path, config, {"baseline": 30.3, "dhm": 27.4}[config.method] + config.seed / 100)
    found = finding(judgement.judge(CLAIMS, shelf.gather([tmp_path])), "dhm-baseline")
    assert found.verdict == "reproduced (all 7); supported elsewhere (c2-clean-labels)"


def test_arithmetic_seed_and_place_of_the_data_leave_a_run_the_papers(tmp_path: Path) -> None:
    config = recipes.table2("paper", ["resnet18"], ["baseline"])[0]
    for other in (
        config.replace(precision="16-mixed"),
        config.replace(seed=7),
        config.replace(dataset="/data/imagenet"),
    ):
        assert shelf.identity(other) in shelf.asked_for(recipes.table2, "paper")
    for other in (config.replace(epochs=89), config.replace(dataset="imagenette"), config.replace(lr=0.2)):
        assert shelf.identity(other) not in shelf.asked_for(recipes.table2, "paper")


@pytest.mark.parametrize("here", [".", "/"])
def test_a_run_on_the_folder_it_was_started_in_is_read_as_any_other(here: str, tmp_path: Path) -> None:
    config = small_config(experiment="mine", dataset=here)
    write_run(tmp_path, config, 20.0)
    assert shelf.gather([tmp_path]).others == [f"mine/{config.name}"]


def test_foreign_old_and_broken_records_are_named_and_passed_over(tmp_path: Path) -> None:
    table1_runs(tmp_path, {"baseline": [30.3], "dhm": [27.4]})
    write_run(tmp_path, small_config(experiment="mine"), 20.0)
    dhm.RunRecord.of(small_config(experiment="mine", seed=1), tmp_path).create()  # unfinished
    later = tmp_path / "later" / "run"
    later.mkdir(parents=True)
    (later / "config.json").write_text(json.dumps({"arch": "resnet32", "a_setting_of_tomorrow": 1}))
    torn = write_run(tmp_path, small_config(experiment="torn"), 20.0)
    (torn / "result.json").write_text('{"last": ')
    found = shelf.gather([tmp_path])
    assert len(found.of_the_paper["table1"]) == 2
    assert sorted(name.partition("/")[0] for name in found.others) == ["mine", "mine"]
    assert any("not finished" in name for name in found.others)
    assert any("a_setting_of_tomorrow" in sentence for sentence in found.broken)
    assert any("torn" in sentence or torn.name in sentence for sentence in found.broken)
    findings = judgement.judge(CLAIMS, found)
    assert finding(findings, "table1-resnet32-top1-dhm-baseline").verdict == "agrees in sign (one run)"


def test_a_seed_counts_once_and_recipes_stay_apart(tmp_path: Path) -> None:
    """Three seeds of a run and their copies are three; of two recipes the paper's speaks, as far as it was run."""
    local, kept = tmp_path / "runs", tmp_path / "records"
    for config in recipes.table1("paper", ["wrn16_8"], ("baseline", "dhm"), seeds=range(3)):
        write_run(local, config, 20.0)
        write_run(kept, config, 20.0)
    for config in recipes.table1("released", ["wrn16_8"], ("baseline", "dhm"), seeds=range(5)):
        write_run(local, config, 30.0)
    for config in recipes.table1("released", ["densenet40_12"], ("dhm",), seeds=range(2)):
        write_run(local, config, 25.0)
    (half,) = recipes.table1("paper", ["wrn16_8"], ("dhm",), seeds=[0])
    write_run(local, half.replace(precision="16-mixed"), 40.0)
    assert len(dhm.load_runs(kept, local)) == 3 * 2 + 5 * 2 + 2 + 1
    found = shelf.gather([kept, local])
    runs = found.of_the_paper["table1"]
    assert runs[runs["network"] == "wrn16_8"]["last/B0/top1_error"].tolist() == [20.0] * 6
    assert runs[runs["network"] == "densenet40_12"]["last/B0/top1_error"].tolist() == [25.0] * 2
    assert [name for name in found.others if "on record already" in name]
    findings = judgement.judge(CLAIMS, found)
    assert finding(findings, "table1-wrn16_8-top1-dhm-baseline").verdict == "incomplete (3 of 5 seeds)"


def test_price_counts_the_runs_a_claim_needs() -> None:
    row = next(claim for claim in CLAIMS if claim.id == "table1-resnet32-top1-dhm-baseline")
    runs = report.runs_of(row)
    assert len(runs) == 10
    assert {run.method for run in runs} == {"baseline", "dhm"}
    assert {run.network for run in runs} == {"resnet32"}
    base = [run for run in runs if run.method == "baseline"]
    forward = flops(dhm.create_model("resnet32", branches="none"), 32)["B0"]
    first = 32 * 32 * 9 * 3 * 16
    expected = 5 * 1e-9 * (3 * forward - first) * 50_000 * 164 / 3600
    assert sum(cost.hours(run, 1e-9) for run in base) == pytest.approx(expected)
    same = next(claim for claim in CLAIMS if claim.kind == "same")
    assert report.price(same, 1e-9) == "seconds"


@pytest.mark.parametrize("claim", [c for c in CLAIMS if report.runs_of(c)], ids=lambda claim: claim.id)
def test_commands_train_all_that_their_claim_needs(claim: claims.Claim) -> None:
    _, _, _, _, name, *rest = shlex.split(report.command(claim))
    given = {key: notebook._value(key, value, None) for key, value in zip(rest[1::3], rest[2::3], strict=True)}
    known = papermill.inspect_notebook(str(paths.root() / "notebooks" / f"{name}.ipynb"))
    assert set(given) <= set(known)
    usual = ast.literal_eval(known["seeds"]["default"])
    grid = {key: value for key, value in given.items() if key in ("architectures", "datasets")}
    trained = report.TABLES[claim.tables[0]](given["preset"], seeds=given.get("seeds", usual), **grid)
    assert {run.name for run in report.runs_of(claim)} <= {run.name for run in trained}


def test_what_is_decided_without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "list_models", lambda: ["resnet32", "mobilenet_v1"])
    assert proofs.inference() == ("the plain network's multiply-adds and parameters in 2 of 2", "holds")
    monkeypatch.setattr(proofs, "inference_flops", lambda net, size: 1)
    assert proofs.inference() == ("the plain network's multiply-adds and parameters in 0 of 2", "does not hold")
    told, word = proofs.expansion()
    assert float(re.findall(r"σ\^([\d.]+),", told)[0]) == pytest.approx(2, abs=0.1)
    assert word == "does not hold"
    complete = smooth.Course.expanded  # with all terms of second order, what is left out is of higher order
    monkeypatch.setattr(smooth.Course, "expanded", lambda course, kind: complete(course, "full"))
    assert proofs.expansion()[1] == "holds"


def test_powers_of_table_1() -> None:
    """WRN-16-8's DSL over baseline: pooled deviation of the printed ones, noncentral t by hand."""
    table = report.powers()
    source = published("table1")
    a, b = source["wrn16_8", "baseline"], source["wrn16_8", "dsl"]
    std = math.sqrt((a.std**2 + b.std**2) / 2)
    shift = (a.mean - b.mean) / std * math.sqrt(5 / 2)
    edge = stats.t.ppf(1 - 0.05 / 21 / 2, 8)
    chance = stats.nct.sf(edge, 8, shift) + stats.nct.cdf(-edge, 8, shift)
    assert table.loc["wrn16_8: DSL over baseline", "chance that 5 seeds show it"] == f"{chance:.0%}"


def test_commands_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command for every claim that a training decides, none twice; rows of Tables 1 to 3 apart, each claim once."""
    monkeypatch.setattr(cost, "hours", lambda run, pace: 1.0)  # counting the largest networks takes minutes
    findings = [claims.Finding(claim, "", "") for claim in CLAIMS]
    commands = report.commands(findings)
    assert len(set(commands)) == len(commands)
    wanted = {report.command(claim) for claim in CLAIMS if report.price(claim, 1e-9) not in ("–", "seconds")}
    assert set(commands) == wanted
    sentences, tables = report.by_place(findings)
    assert list(tables) == ["Table 1", "Table 2", "Table 3"]
    assert sum(map(len, tables.values())) + len(sentences) == len(CLAIMS)
    assert {finding.claim.place for finding in tables["Table 2"]} == {"Table 2"}


def test_records_that_speak_of_no_claim_are_grouped() -> None:
    found = shelf.Shelf({}, dhm.load_runs(paths.root() / "tests"), [], ["own/a", "x/b", "own/c"], ["broken: y"])
    assert found.unclaimed() == ["own: 2 runs, e.g. a", "x: 1 runs, e.g. b", "! broken: y"]
    assert NOTHING.unclaimed() == ["none"]


def test_page_colours_verdicts() -> None:
    findings = judgement.judge([claim for claim in CLAIMS if claim.kind == "same"], NOTHING)
    html = report.page(findings, 1e-11).to_html()
    assert "28.714" in html
    assert report.WORDS["misprint"] in html


@pytest.mark.parametrize(
    ("verdict", "word"),
    [("reproduced (all 7)", "reproduced"), ("contradicted: 1 contradicted, 6 not run", "contradicted"),
     ("not supported elsewhere (c2)", "not supported elsewhere"), ("incomplete (2 of 5 seeds)", "open"),
     ("the same within 0.5", "the same"), ("agrees in sign (one run)", "open"), ("not run", "not run")],
)  # fmt: skip
def test_outcomes(verdict: str, word: str) -> None:
    assert report.outcome(verdict) == word


def test_report_writes_a_page_without_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a notebook in the place of the report, since that one has its own run under nbval."""
    import nbformat

    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("answer = 6 * 7\nprint('the answer is', answer)",
               outputs=[nbformat.v4.new_output("stream", text="the answer is 42\n")], execution_count=1)]
    )  # fmt: skip
    nbformat.write(book, tmp_path / "report.ipynb")
    monkeypatch.setattr(notebook, "run_notebook", lambda name, _: tmp_path / f"{name}.ipynb")
    assert cli.main(["report", "-o", str(tmp_path / "deep" / "page.html")]) == 0
    html = (tmp_path / "deep" / "page.html").read_text()
    assert "the answer is 42" in html
    assert "6 * 7" not in html
