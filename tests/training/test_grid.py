"""Runs of a grid: those that another process is training, and a stop between two of them."""

import os
import signal
from pathlib import Path

import pytest
from conftest import small_config
from filelock import FileLock

import dhm
from dhm.errors import Stopped
from dhm.training import grid
from dhm.training.step import Trainer

OPTIONS = {"accelerator": "cpu", "progress": False}


def test_runs_under_way_elsewhere_are_waited_for_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The next runs are trained meanwhile; records come in the order asked for."""
    configs = [small_config(epochs=1, seed=seed) for seed in range(3)]
    records = [dhm.RunRecord.of(config, tmp_path) for config in configs]
    records[0].folder.mkdir(parents=True)
    lock, waited = FileLock(records[0].folder / ".lock"), []

    def sleep(seconds: float) -> None:
        waited.append([record.result is not None for record in records])
        lock.release()

    monkeypatch.setattr(grid.time, "sleep", sleep)
    lock.acquire()
    made = list(grid.fit_all(configs, runs_dir=tmp_path, **OPTIONS))
    assert [record.config.seed for record in made] == [0, 1, 2]
    assert waited == [[False, True, True]]
    assert [line[:5] for line in capsys.readouterr().out.splitlines()] == ["[2/3]", "[3/3]", "[1/3]"]


def test_or_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    configs = [small_config(epochs=1, seed=seed) for seed in range(2)]
    folder = dhm.RunRecord.of(configs[0], tmp_path).folder
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        made = list(grid.fit_all(configs, wait=False, runs_dir=tmp_path, **OPTIONS))
    assert [record.config.seed for record in made] == [1]
    assert "is being trained by another process; passed over" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_last_epoch_of_a_run_the_next_is_not_begun(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, test = [small_config(epochs=1, seed=seed) for seed in range(2)], Trainer.test

    def asked(self: Trainer) -> object:
        os.kill(os.getpid(), number)
        return test(self)

    monkeypatch.setattr(Trainer, "test", asked)
    with pytest.raises(Stopped, match="the same command goes on from here"):
        list(grid.fit_all(configs, runs_dir=tmp_path, **OPTIONS))
    records = [dhm.RunRecord.of(config, tmp_path) for config in configs]
    assert [record.result is not None for record in records] == [True, False]
