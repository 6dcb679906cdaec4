"""Disks that are full, not to be written to, or gone in the middle of an epoch: one sentence, and nothing is lost."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import small_config
from trainings import arguments, kinds, outcome, same, serving, wait_for

import dhm
from dhm.records.record import RunRecord
from dhm.training.step import Trainer

OPTIONS = {"accelerator": "cpu", "progress": False}


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """No file may grow larger than half a checkpoint: the run stands where it stood, and with room ends as ever."""
    configs, _ = kinds(tmp_path)["cifar"]
    record, given = RunRecord.of(configs[0], tmp_path / "runs"), arguments(configs, tmp_path, tmp_path / "runs")
    with serving(tmp_path) as server:
        child = server.start(*given)
        wait_for(lambda: record.begun)
        child.send(signal.SIGKILL)
        child.wait()
        before = (record.folder / "last.pt").read_bytes()
        assert server.start(*given, limit=len(before) // 2).wait() == [2]
        told = server.log.read_text()
        assert "last.pt cannot be written" in told
        assert "Traceback" not in told
        assert record.checkpoint() is not None
        assert not list(record.folder.glob(".*.partial"))
        for folder in ("runs", "whole"):
            assert server.start(*arguments(configs, tmp_path, tmp_path / folder)).wait() == [0]
    assert same(outcome(record), outcome(RunRecord.of(configs[0], tmp_path / "whole")))


@pytest.mark.parametrize("reason", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_write_is_told(reason: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file it is that cannot be put in its place, the run goes on from the last checkpoint afterwards."""
    expected = outcome(dhm.fit(small_config(), runs_dir=tmp_path / "whole", **OPTIONS))
    replace, run = os.replace, RunRecord.of(small_config(), tmp_path / "runs")
    for fails_at in (0, 1, 3, 7, 20):
        writes = iter(range(1000))

        def failing(source: Path, target: Path, writes=writes, fails_at: int = fails_at) -> None:
            if next(writes) >= fails_at:
                raise OSError(reason, os.strerror(reason))
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", failing)
            with pytest.raises(dhm.InputError, match=f"cannot be written .*{os.strerror(reason)}"):
                dhm.fit(small_config(), runs_dir=tmp_path / "runs", checkpoint_every=0.0, **OPTIONS)
        assert not list(run.folder.glob(".*.partial"))
    dhm.fit(small_config(), runs_dir=tmp_path / "runs", **OPTIONS)
    assert same(outcome(run), expected)


def stopping_at(position: tuple[int, int], act: object, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def acting(self: Trainer, epoch: int, number: int, *rest: object) -> object:
        if (epoch, number) == position:
            act()  # type: ignore[operator]
        return step(self, epoch, number, *rest)

    monkeypatch.setattr(Trainer, "step", acting)


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(dhm.InputError, match=r"\.lock cannot be locked \(No locks available\)"):
        dhm.fit(small_config(), runs_dir=tmp_path, **OPTIONS)


def test_records_that_vanish_in_an_epoch_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping_at((1, 2), lambda: shutil.rmtree(tmp_path / "runs"), monkeypatch)
    with pytest.raises(dhm.InputError, match="cannot be written"):
        dhm.fit(small_config(), runs_dir=tmp_path / "runs", checkpoint_every=0.0, **OPTIONS)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_vanish_in_an_epoch_are_not_trained_without(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the disk is back the run ends with the bits of one that never missed it."""
    config = kinds(tmp_path)["streamed"][0][0]
    expected = outcome(dhm.fit(config, runs_dir=tmp_path / "whole", **OPTIONS))
    images, away = tmp_path / "set" / "train", tmp_path / "away"
    with monkeypatch.context() as patch:
        stopping_at((1, 0), lambda: images.rename(away), patch)
        with pytest.raises(dhm.InputError, match=r"the image .*\.jpg is gone.*the same command goes on"):
            dhm.fit(config, runs_dir=tmp_path / "runs", workers=workers, checkpoint_every=0.0, **OPTIONS)
    away.rename(images)
    run = dhm.fit(config, runs_dir=tmp_path / "runs", workers=workers, **OPTIONS)
    assert run.result["unreadable"] == []
    assert same(outcome(run), expected)
