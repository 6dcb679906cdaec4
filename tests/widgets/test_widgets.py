"""What the explorers show, without widgets; then that their controls lead there. In a browser: test_browser."""

import asyncio
import re
import time
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_config, write_run
from matplotlib.figure import Figure
from readable import assert_readable
from scipy.special import log_softmax, softmax

import dhm
from dhm import InputError, RunRecord
from dhm.analysis.theory import smooth
from dhm.analysis.theory.terms import dissect, frame
from dhm.analysis.variants import spoken
from dhm.plots.runs import overview
from dhm.widgets import expansion, live, loss, network, runs
from dhm.zoo import FAMILIES


def test_terms_are_what_the_formulas_say() -> None:
    """Cross-entropy, softmax minus one-hot, T^2 KL, T (q - p) to the student, exact zeros to the teacher."""
    logits, target, temperature = {"B0": (2.0, 0.5, -1.0), "B1": (0.5, 1.5, -0.5), "B2": (0.0, 0.2, 0.6)}, 2, 1.7
    found = {term.name: term for term in dissect(logits, target, temperature=temperature)}
    assert len(found) == 3 + 6
    for head, z in logits.items():
        term = found[f"ce/{head}"]
        assert term.value == pytest.approx(-log_softmax(z)[target])
        np.testing.assert_allclose(term.gradients[head], softmax(z) - np.eye(3)[target], atol=1e-12)
        assert not any(value for other, values in term.gradients.items() if other != head for value in values)
    for student in logits:
        for teacher in set(logits) - {student}:
            p, q = (softmax(np.array(logits[head]) / temperature) for head in (teacher, student))
            term = found[f"kl/{student}<-{teacher}"]
            assert term.value == pytest.approx(temperature**2 * np.sum(p * np.log(p / q)))
            np.testing.assert_allclose(term.gradients[student], temperature * (q - p), atol=1e-12)
            assert not any(value for head, values in term.gradients.items() if head != student for value in values)


def test_terms_add_up_to_the_loss() -> None:
    total, _ = dhm.DHMLoss()({h: torch.tensor([z]) for h, z in loss.LOGITS.items()}, torch.tensor([0]))
    assert sum(term.value for term in dissect(loss.LOGITS, 0)) == pytest.approx(float(total), rel=1e-6)
    table = frame(dissect(loss.LOGITS, 0, "dsl"))
    assert list(table.index) == ["CE B0", "CE B1", "CE B2", "sum"]
    assert table.loc["CE B1", "gradient to B0"] == "0"
    assert [term.name for term in dissect(loss.LOGITS, 0, "baseline")] == ["ce/B0"]
    with pytest.raises(InputError, match="target must be a class from 0 to 2, not 3"):
        dissect(loss.LOGITS, 3)


def test_expectation_by_quadrature_is_the_mean_of_samples() -> None:
    found = smooth.course("value", 0, 1, [0.4])
    h = torch.randn(3, 2, generator=dhm.randomness.generator(2), dtype=torch.float64)
    torch.manual_seed(0)
    noisy = h + 0.4 * torch.randn(200_000, 1, 2, dtype=torch.float64)
    values = -smooth.smooth_head(1)(noisy) * smooth.smooth_head(0)(noisy).log()
    torch.testing.assert_close(found.truth[0], values.mean(dim=0), atol=6e-3, rtol=0)
    assert found.missed("full")[0] < found.missed("printed")[0]


def test_views_are_readable_and_say_what_they_show() -> None:
    views = {
        "loss": loss.view(),
        "baseline": loss.view(method="baseline"),
        "value": expansion.view(0.5),
        "gradient": expansion.view(1.0, "student's gradient", 3, 4),
        "network": network.view("wrn", "bare", depth=10, width=1),
    }
    for shown in views.values():
        assert isinstance(shown.figure, Figure)
        assert_readable(shown.figure)
        assert shown.figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0), "a dark page would swallow the letters"
    assert "6 of 6 mimicking terms reach their student alone" in views["loss"].words
    orders = [float(order) for order in re.findall(r"σ\^([\d.]+\d)", views["value"].words)]
    assert orders == pytest.approx([2, 4], abs=0.1)
    assert "training takes 1.00 times" in views["network"].words
    with pytest.raises(InputError, match="sigma must be above 0 and at most 1, not 2"):
        expansion.view(2)
    with pytest.raises(InputError, match="a gradient of 0 at any noise; take two classifiers"):
        expansion.view(0.3, "student's gradient", 4, 4)


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for method in ("dhm", "dsl", "baseline"):
        dhm.fit(small_config(method=method, epochs=2, milestones=(1,)), runs_dir=folder, progress=False)
    return folder


def test_runs_are_found_and_drawn(three_runs: Path, tmp_path: Path) -> None:
    found = runs.choices(three_runs)
    chosen = [found[name] for name in runs.first(found)]
    assert [record.config.method for record in chosen] == ["baseline", "dsl", "dhm"]
    shown = runs.view(chosen)
    assert shown.figure is not None
    assert_readable(shown.figure)
    errors = dhm.load_runs(three_runs).set_index("method")["last/B0/top1_error"]
    assert isinstance(shown.table, pd.DataFrame)
    for method in ("baseline", "dhm"):
        printed = shown.table.loc[spoken(f"{method}, seed 0"), "error of B0 (%)"]
        assert float(printed) == pytest.approx(errors[method], abs=0.01)
    assert runs.view([]).words.startswith("There are no runs to show yet.")
    assert "no runs to show yet" in runs.explore(tmp_path).children[1].value


def test_a_search_is_no_error(tmp_path: Path, three_runs: Path) -> None:
    """Of a re-identification run 100 - mAP is shown, and no gap between accuracy and mAP; beside another run both."""
    search = RunRecord.read(write_run(tmp_path, small_config(experiment="search"), 0.0))
    search.write_metrics([{**search.metrics[0], "test": {"B0": {"mAP": 30.0, "rank1": 50.0}}}])
    shown = runs.view([search])
    assert isinstance(shown.table, pd.DataFrame)
    assert list(shown.table.columns) == ["epochs", "100 − mAP of B0 (%)"]
    assert shown.table["100 − mAP of B0 (%)"].tolist() == ["70.00"]
    assert "gap" not in shown.words
    assert shown.figure is not None
    assert_readable(shown.figure)
    assert [ax.get_ylabel() for ax in shown.figure.axes] == [
        "accuracy (%);\ntest of a search: mAP (%)",
        "100 − mAP (%)",
    ]
    both = runs.view([search, next(iter(runs.choices(three_runs).values()))])
    assert both.figure is not None
    assert_readable(both.figure)
    assert len(both.figure.axes[2].lines) == 2  # of the run with errors, and zero
    assert both.table[runs.GAP].tolist()[0] == "–"
    assert "The gap is" in both.words


def test_a_line_means_one_thing() -> None:
    """Dashes tell classifiers apart in the whole figure, so test and training differ otherwise."""
    errors = {"B0": {"top1_error": 60.0}, "B1": {"top1_error": 65.0}}
    lines = [{"epoch": epoch, "train": {"accuracy/B0": 0.5}, "test": errors} for epoch in range(3)]
    first, second, _ = overview({"dhm, seed 0": lines}).axes
    assert {line.get_linestyle() for line in first.lines} == {"-"}
    assert [line.get_linestyle() for line in second.lines] == ["-", "--"]
    train, test = first.get_legend().get_lines()
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["training", "test"]
    assert [line.get_linewidth() for line in first.lines] == [train.get_linewidth(), test.get_linewidth()]
    assert train.get_linewidth() < test.get_linewidth()


def controls(box: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    """All widgets of an explorer."""
    return [box, *(widget for child in getattr(box, "children", ()) for widget in controls(child))]


def of(explorer: ipywidgets.Widget, kind: type, description: str = "") -> ipywidgets.Widget:
    return next(w for w in controls(explorer) if isinstance(w, kind) and getattr(w, "description", "") == description)


@pytest.mark.parametrize(
    ("module", "kind", "description", "value"),
    [
        (loss, ipywidgets.FloatSlider, "B2, class 1", 3.0),
        (loss, ipywidgets.Dropdown, "direction", "top_down"),
        (expansion, ipywidgets.FloatSlider, "noise σ", 0.7),
        (network, ipywidgets.Dropdown, "network", "resnet18"),
    ],
)
def test_controls_change_the_picture(module: object, kind: type, description: str, value: object) -> None:
    explorer = module.explore()  # type: ignore[attr-defined]
    image = next(w for w in controls(explorer) if isinstance(w, ipywidgets.Image))
    before, words = image.value, of(explorer, ipywidgets.HTML).value
    assert before[:8] == b"\x89PNG\r\n\x1a\n"
    of(explorer, kind, description).value = value
    assert image.value != before
    assert of(explorer, ipywidgets.HTML).value != words


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_shown_by_its_own_defaults(family: str) -> None:
    explorer = network.explore()
    of(explorer, ipywidgets.Dropdown, "network").value = family
    assert of(explorer, ipywidgets.HTML).value.partition(">")[2].startswith(f"{family}, ")


def test_a_wrong_option_is_a_sentence() -> None:
    explorer = network.explore()
    of(explorer, ipywidgets.Dropdown, "network").value = "cifar_resnet"
    of(explorer, ipywidgets.IntText, "depth").value = 21
    assert "depth must be 6n + 2" in of(explorer, ipywidgets.HTML).value


def test_a_large_network_leaves_the_kernel_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of the kernel turns on while another process measures."""
    monkeypatch.setattr(network, "LARGE", 10)
    monkeypatch.setattr(network, "_measured", {})

    async def kernel() -> float:
        explorer, longest, last = network.explore(), 0.0, time.monotonic()
        while of(explorer, ipywidgets.HTML).value.startswith("measuring resnet32"):
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert "resnet32 (Table 6)" in of(explorer, ipywidgets.HTML).value
        return longest

    assert asyncio.run(asyncio.wait_for(kernel(), 180)) < 5


def test_a_network_that_is_too_large_is_told_though_another_process_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found_elsewhere(name: str, branches: str, options: dict) -> None:
        network.create_model(name, branches=branches, **options)

    monkeypatch.setattr(network, "_measure_elsewhere", found_elsewhere)

    async def kernel() -> str:
        explorer = network.explore()
        of(explorer, ipywidgets.Dropdown, "network").value = "wrn"
        of(explorer, ipywidgets.IntText, "depth").value = 100_000
        await asyncio.sleep(0.1)
        return of(explorer, ipywidgets.HTML).value

    assert "a network of 49,998 blocks is deeper than the 10,000 that are built" in asyncio.run(kernel())


def test_a_training_is_started_watched_and_stopped(tmp_path: Path) -> None:
    """In a process of its own; stopped it says so, and started again it ends with a result."""
    config = live.configuration("baseline", epochs=4, preset="smoke")
    record = RunRecord.of(config, tmp_path)
    process = live.start(record)
    assert list(live.unfinished(tmp_path).values()) == [record]
    assert "epoch 0 of 4, under way. The first epoch has not ended yet" in live.view(record, True).words
    live.stop(process)
    process.wait(60)
    assert record.result is None
    assert "stopped; started again, it goes on" in live.view(record, False).words
    assert live.start(record).wait(180) == 0
    assert live.view(record).words.endswith("epoch 4 of 4, finished.")
    assert not live.unfinished(tmp_path)
    fitted = dhm.fit(config, runs_dir=tmp_path / "again", progress=False)
    assert fitted.metrics[-1]["test"] == record.metrics[-1]["test"]


def test_the_live_explorer_starts_watches_and_stops(tmp_path: Path) -> None:
    """A run that was started elsewhere is listed and followed to its end; one of its own is stopped by its button."""
    record = RunRecord.of(live.configuration("baseline", epochs=2, preset="smoke"), tmp_path)
    elsewhere = live.start(record)

    async def says(explorer: ipywidgets.Widget, words: str) -> None:
        while words not in of(explorer, ipywidgets.HTML).value:
            await asyncio.sleep(0.05)

    async def kernel() -> None:
        explorer = live.explore(tmp_path, "smoke")
        assert "live · cifar_resnet_depth8 · baseline" in of(explorer, ipywidgets.Dropdown, "under way elsewhere").value
        of(explorer, ipywidgets.Button, "Watch").click()
        await says(explorer, "seconds ago")
        await says(explorer, "epoch 2 of 2, finished.")
        assert next(w for w in controls(explorer) if isinstance(w, ipywidgets.Image)).value
        stop = of(explorer, ipywidgets.Button, "Stop")
        while not stop.disabled:
            await asyncio.sleep(0.05)
        of(explorer, ipywidgets.IntSlider, "epochs").value = 60
        of(explorer, ipywidgets.Button, "Start training").click()
        await says(explorer, "epoch 0 of 60, under way")
        stop.click()
        await says(explorer, "stopped")

    asyncio.run(asyncio.wait_for(kernel(), 180))
    assert elsewhere.wait(60) == 0


def test_why_a_training_did_not_start_is_shown(tmp_path: Path) -> None:
    config = live.configuration("dhm", epochs=2, preset="smoke").replace(dataset="no-such-folder")
    record = RunRecord.of(config, tmp_path)
    assert live.start(record).wait(120) == 2
    assert "no-such-folder" in live.view(record, False).words


def test_a_mutual_learning_run_stands_beside_the_others(tmp_path: Path) -> None:
    """Its variant is named after no method of the loss; it comes after those that are."""
    for branches, method in (("twin", "dhm"), ("paper", "dhm"), ("paper", "baseline")):
        write_run(tmp_path, small_config(experiment="g", method=method, branches=branches), 20.0)
    found = runs.choices(tmp_path)
    assert [name.rpartition(" · ")[2] for name in runs.first(found)] == [
        "baseline (seed 0)",
        "DHM (seed 0)",
        "DML (seed 0)",
    ]
