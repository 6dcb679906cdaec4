"""Progress in a terminal, a log file and Jupyter."""

import io
import sys

import pytest
from conftest import small_config

import dhm
from dhm.training import loop, progress
from dhm.training.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Bar("a run", 3, "step") as bar:
        for i in range(3):
            bar.advance(f"B0 error {i}%")
    assert "a run" in screen.getvalue()
    assert screen.getvalue().rsplit("\r", 2)[-2].strip() == ""


def test_log_gets_whole_lines_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    now = iter(range(0, 10_000, 25))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with Bar("a run", 100, "step", start=40) as bar:
        for _ in range(6):
            bar.advance("epoch 0, B0 error 50.0%")
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) < 6
    assert all(line.startswith("a run: step ") and "left, epoch 0, B0 error 50.0%" in line for line in lines)


def test_time_left_counts_from_where_the_run_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    bar = Bar("a run", 100, "step", start=40)
    clock[0] = 20.0
    for _ in range(10):
        bar.advance()
    assert "step 50 of 100, 1:40 left" in bar.text()


def test_silence(capsys: pytest.CaptureFixture) -> None:
    with Bar("a run", 2, "step", shown=False) as bar:
        bar.advance()
        bar.say("a result")
    assert capsys.readouterr() == ("a result\n", "")


def test_jupyter_replaces_one_output_and_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    shown: list[dict] = []

    class Handle:
        def update(self, content: dict, raw: bool) -> None:
            shown.append(content)

    monkeypatch.setattr(progress, "place", lambda: "jupyter")
    monkeypatch.setattr(IPython.display, "display", lambda content, **_: shown.append(content) or Handle())
    monkeypatch.setitem(progress.REFRESH, "jupyter", -1.0)
    monkeypatch.setattr(progress, "_outputs", {})
    with Bar("a run", 2, "step") as bar:
        bar.advance("B0 error 9.0%")
    assert "<progress" in shown[0]["text/html"]
    assert "step 1 of 2" in shown[1]["text/plain"]
    assert shown[-1] == {"text/plain": ""}
    with Bar("all runs", 2, "run"), Bar("another", 2, "step"):
        assert len(progress._outputs) == 2


def test_a_run_that_has_learned_nothing_is_told_once(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(loop, "know_nothing", lambda means, classes: classes == 5)
    dhm.fit(small_config(epochs=4), runs_dir=tmp_path, accelerator="cpu")
    assert capsys.readouterr().out.count("after 3 epochs all classifiers agree on the uniform prediction") == 1
