"""A run that was stopped ends with the same bits as one that was not."""

import os
import time
from pathlib import Path

import pytest
import torch
from conftest import small_config

import dhm
from dhm.records import checkpoints
from dhm.training import loop, position
from dhm.training.step import Trainer

TIMES = ("seconds", "starts")


def outcome(record: dhm.RunRecord) -> tuple[dict, list, dict]:
    """Everything a run leaves but its times: weights and optimizer, metrics, result."""
    metrics = [{k: v for k, v in line.items() if k not in TIMES} for line in record.metrics]
    result = {k: v for k, v in record.result.items() if k not in TIMES}
    return checkpoints.load(record.folder / "last.pt"), metrics, result


def assert_same(a: object, b: object, where: str = "") -> None:
    """Equal to the last bit, through dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in TIMES:
                assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    else:
        assert a == b, where


def test_same_config_same_bits(tmp_path: Path) -> None:
    config = small_config(arch="wrn", options={"depth": 10, "width": 1, "dropout": 0.3})
    runs = [dhm.fit(config, runs_dir=tmp_path / name, accelerator="cpu", progress=False) for name in "ab"]
    assert_same(outcome(runs[0]), outcome(runs[1]))


def test_seed_changes_everything(tmp_path: Path) -> None:
    runs = [
        dhm.fit(small_config(seed=seed, epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
        for seed in (0, 1)
    ]
    first, second = (checkpoints.load(run.folder / "last.pt")["net"] for run in runs)
    assert not torch.equal(first["backbone.conv1.weight"], second["backbone.conv1.weight"])


def test_an_epoch_counts_its_seconds_over_a_stop_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, step = small_config(), Trainer.step

    def slow(self: Trainer, epoch: int, number: int, *batch: torch.Tensor) -> object:
        if (epoch, number) == (1, 5):
            raise KeyboardInterrupt
        time.sleep(0.1 if (epoch, number) == (1, 2) else 0)
        return step(self, epoch, number, *batch)

    options = {"runs_dir": tmp_path, "accelerator": "cpu", "progress": False}
    monkeypatch.setattr(Trainer, "step", slow)
    with pytest.raises(KeyboardInterrupt):
        dhm.fit(config, checkpoint_every=0.0, **options)
    record = dhm.RunRecord.of(config, tmp_path)
    leftover, others = (record.folder / f".{name}.4242.partial" for name in ("best.pt", "config.json"))
    leftover.write_bytes(b"half")
    others.write_bytes(b"being written by a process that will find the run busy")
    before = checkpoints.load(record.folder / "last.pt")["at"]["seconds"]["train"]
    assert before > 0.1
    monkeypatch.setattr(Trainer, "step", step)
    assert dhm.fit(config, **options).metrics[1]["seconds"]["train"] > before
    assert [leftover.exists(), others.exists()] == [False, True]


def test_finished_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(epochs=1)
    first = dhm.fit(config, runs_dir=tmp_path, accelerator="cpu", progress=False)
    monkeypatch.setattr(loop, "prepare", lambda *_, **__: pytest.fail("prepared a finished run"))
    assert dhm.fit(config, runs_dir=tmp_path).result == first.result


def test_processes_that_find_different_checkpoints_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of run records that is each host's own: the first goes on from its checkpoint, its peers begin anew."""
    monkeypatch.setattr(position, "gather", lambda value, world: [value, (1, 5)])
    with pytest.raises(dhm.InputError, match="one that all hosts share"):
        dhm.fit(small_config(), runs_dir=tmp_path, accelerator="cpu", progress=False)
    assert not list(tmp_path.rglob("last.pt"))


def test_the_best_epoch_is_not_ahead_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a checkpoint may wait: a run that goes on elsewhere, with other bits, may not find that epoch."""
    saves = []
    save = loop.save
    monkeypatch.setattr(loop, "save", lambda *args: (saves.append(args[2].epoch - 1), save(*args))[1])
    record = dhm.fit(small_config(), runs_dir=tmp_path, accelerator="cpu", progress=False, checkpoint_every=1e9)
    errors = [line["test"]["B0"]["top1_error"] for line in record.metrics]
    assert saves == [e for e in range(len(errors)) if e == len(errors) - 1 or errors[e] < min([101.0, *errors[:e]])]


def test_half_written_file_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in the middle of writing leaves the old file as it was."""
    file = tmp_path / "last.pt"
    checkpoints.save(file, {"at": 1})

    def crash(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(dhm.InputError, match=r"last\.pt cannot be written \(disk full\): what stands there is whole"):
        checkpoints.save(file, {"at": 2})
    assert checkpoints.load(file) == {"at": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_truncated_checkpoint_is_told(tmp_path: Path) -> None:
    record = dhm.fit(small_config(epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
    whole = (record.folder / "last.pt").read_bytes()
    (record.folder / "last.pt").write_bytes(whole[: len(whole) // 2])
    (record.folder / "result.json").unlink()
    with pytest.raises(dhm.InputError, match=r"last\.pt is damaged"):
        dhm.fit(record.config, runs_dir=tmp_path, accelerator="cpu", progress=False)


def test_other_images_under_the_same_name_are_refused(tmp_path: Path) -> None:
    record = dhm.fit(small_config(epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
    (record.folder / "result.json").unlink()
    environment = record.environment
    environment[-1]["data"]["train_checksum"] += 1
    record.write_json("env.json", environment)
    with pytest.raises(dhm.InputError, match="other images"):
        dhm.fit(record.config, runs_dir=tmp_path, accelerator="cpu", progress=False)


def test_run_finished_while_another_process_prepared_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes share a grid: the second saw no result, and when it gets the lock the first has finished."""
    config = small_config(epochs=1)
    prepare = loop.prepare

    def meanwhile(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(loop, "prepare", prepare)
        dhm.fit(config, runs_dir=tmp_path, accelerator="cpu", progress=False)
        return prepare(*arguments, **options)

    monkeypatch.setattr(loop, "prepare", meanwhile)
    record = dhm.fit(config, runs_dir=tmp_path, accelerator="cpu", progress=False)
    assert len(record.environment) == 1
    assert record.result is not None
