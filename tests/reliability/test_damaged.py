"""Files of a record cut short, or with one bit flipped: each is refused by its name or read as it was written."""

import errno
import os
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import small_config
from trainings import outcome, same

import dhm
from dhm.__main__ import main
from dhm.records import checkpoints
from dhm.records.record import FILES, RunRecord
from dhm.records.store import find, load_runs
from dhm.training.step import Trainer

CHECKPOINTS = ("last.pt", "best.pt")
OPTIONS = {"accelerator": "cpu", "progress": False}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return dhm.fit(small_config(epochs=1), runs_dir=tmp_path_factory.mktemp("finished"), **OPTIONS)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run stopped in its second epoch, with a checkpoint after every step."""
    folder, step = tmp_path_factory.mktemp("stopped"), Trainer.step

    def stopping(self: Trainer, epoch: int, number: int, *rest: object) -> object:
        if (epoch, number) == (1, 4):
            raise KeyboardInterrupt
        return step(self, epoch, number, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            dhm.fit(small_config(), runs_dir=folder, checkpoint_every=0.0, **OPTIONS)
    return RunRecord.of(small_config(), folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the stopped run comes to if it is not stopped."""
    return outcome(dhm.fit(small_config(), runs_dir=tmp_path_factory.mktemp("whole"), **OPTIONS))


def damages(content: bytes, flips: int, seed: str) -> list[bytes]:
    """A file cut after every tenth of its length, and with a bit flipped at so many places."""
    rng = random.Random(seed)
    cuts = [content[: len(content) * tenth // 10] for tenth in range(10)]
    places = [rng.randrange(8 * len(content)) for _ in range(flips)]
    flipped = [
        content[: place // 8] + bytes([content[place // 8] ^ 1 << place % 8]) + content[place // 8 + 1 :]
        for place in places
    ]
    return cuts + flipped


def refused_or(expected: object, read: Callable[[], object], name: str) -> bool:
    """Whether reading was refused; else it gave what was expected."""
    try:
        found, told = read(), ""
    except dhm.InputError as error:
        found, told = expected, str(error)
    assert same(found, expected)
    assert not told or (name in told and "\n" not in told)
    return bool(told)


def everything(folder: Path) -> dict:
    """A finished record as all that reads it sees it."""
    run = RunRecord.read(folder)
    told = {"config": run.config.to_dict(), "env": run.environment, "metrics": run.metrics, "result": run.result}
    return {**told, **{which: run.arrays(f"predictions-{which}.npz") for which in ("last", "best")}}


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_a_sealed_file_is_refused_or_as_it_was(
    name: str, finished: RunRecord, tmp_path: Path, record_property: Callable
) -> None:
    expected, content = everything(finished.folder), (finished.folder / name).read_bytes()
    folder = tmp_path / "runs" / finished.folder.name
    shutil.copytree(finished.folder, folder)
    refused, tried = 0, damages(content, 50, name)
    for damaged in tried:
        (folder / name).write_bytes(damaged)
        refused += refused_or(expected, lambda: everything(folder), name if name != "SHA256SUMS" else folder.name)
    assert refused > 0.9 * len(tried)  # all, but for some bits of the seal that separate its lines
    record_property("damaged files of a sealed record", len(tried))
    record_property("of these refused", refused)
    with pytest.warns(UserWarning, match=f"run record passed over: .*{folder.name}"):
        assert list(find(tmp_path)) == []
    with warnings.catch_warnings(action="ignore"):
        assert len(load_runs(tmp_path, finished.folder)) == 1  # the others are untouched
    assert main(["verify", str(tmp_path)]) == 2


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_refused_or_as_it_was(
    name: str, finished: RunRecord, tmp_path: Path, long: bool, record_property: Callable
) -> None:
    """Some bits of an archive mean nothing, as the hour it was made: then every tensor is what it was."""
    expected, content = checkpoints.load(finished.folder / name), (finished.folder / name).read_bytes()
    file, refused = tmp_path / name, 0
    tried = damages(content, 1000 if long else 100, name)
    for damaged in tried:
        file.write_bytes(damaged)
        refused += refused_or(expected, lambda: checkpoints.load(file), name)
    assert refused > 0.9 * len(tried)
    record_property("damaged checkpoints", len(tried))
    record_property("of these checkpoints refused", refused)


def test_a_damaged_checkpoint_is_never_trained_on(stopped: RunRecord, whole: dict, tmp_path: Path) -> None:
    """The run goes on from the one before, and ends with the same bits."""
    run = RunRecord.of(small_config(), tmp_path)
    shutil.copytree(stopped.folder, run.folder)
    content = (run.folder / "last.pt").read_bytes()
    (run.folder / "last.pt").write_bytes(content[:5000] + bytes([content[5000] ^ 4]) + content[5001:])
    with pytest.warns(UserWarning, match=r"last\.pt is damaged .*goes on from previous\.pt, the one before"):
        dhm.fit(small_config(), runs_dir=tmp_path, **OPTIONS)
    assert run.environment[-1]["from"] == [1, 3]
    assert same(outcome(run), whole)
    assert not (run.folder / "previous.pt").exists()


def test_the_only_whole_checkpoint_stays_until_there_is_another(
    stopped: RunRecord, whole: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one is damaged, and the next cannot be written."""
    run = RunRecord.of(small_config(), tmp_path)
    shutil.copytree(stopped.folder, run.folder)
    (run.folder / "last.pt").write_bytes((run.folder / "last.pt").read_bytes()[:-900])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with (
            pytest.warns(UserWarning, match="the one before"),
            pytest.raises(dhm.InputError, match=r"last\.pt cannot be"),
        ):
            dhm.fit(small_config(), runs_dir=tmp_path, checkpoint_every=0.0, **OPTIONS)
    dhm.fit(small_config(), runs_dir=tmp_path, **OPTIONS)
    assert run.environment[-1]["from"] == [1, 3]
    assert same(outcome(run), whole)


def test_with_no_whole_checkpoint_it_is_said_what_is_lost(stopped: RunRecord, tmp_path: Path) -> None:
    run = RunRecord.of(small_config(), tmp_path)
    shutil.copytree(stopped.folder, run.folder)
    for name in ("last.pt", "previous.pt"):
        (run.folder / name).write_bytes((run.folder / name).read_bytes()[:-900])
    before = {file: file.read_bytes() for file in run.folder.iterdir()}
    with pytest.raises(dhm.InputError, match="remove it to train the run again from its start, which loses 1 epoch"):
        dhm.fit(small_config(), runs_dir=tmp_path, **OPTIONS)
    assert {file: file.read_bytes() for file in run.folder.iterdir()} == before


@pytest.mark.parametrize("name", ["env.json", "metrics.jsonl", "config.json", "predictions-best.npz"])
def test_a_run_goes_on_beside_a_damaged_file_or_tells_of_it(
    name: str, stopped: RunRecord, whole: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the checkpoint holds too is written anew from it; the rest is told before a step is made."""
    content = (stopped.folder / name).read_bytes()
    run = RunRecord.of(small_config(), tmp_path)
    for number, damaged in enumerate(damages(content, 5, name)[::4]):
        shutil.rmtree(run.folder, ignore_errors=True)
        shutil.copytree(stopped.folder, run.folder)
        (run.folder / name).write_bytes(damaged)
        told = ""
        try:
            dhm.fit(small_config(), runs_dir=tmp_path, **OPTIONS)
        except dhm.InputError as error:
            told = str(error)
        if told:
            assert name in told
            assert run.result is None
        else:
            assert same(outcome(run), whole), number


def test_records_of_older_versions_are_read_and_said_to_be_unsealed(
    finished: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / finished.folder.name
    shutil.copytree(finished.folder, folder)
    (folder / "SHA256SUMS").unlink()
    assert same(everything(folder), everything(finished.folder))
    assert main(["verify", str(tmp_path), str(finished.folder)]) == 0
    assert capsys.readouterr().out == "2 records, 1 whole, 1 readable but unsealed\n"
    (folder / "metrics.jsonl").write_text("{")
    assert main(["verify", str(tmp_path)]) == 2
    assert "metrics.jsonl cannot be read" in capsys.readouterr().out


def test_the_seal_is_what_sha256sum_checks(finished: RunRecord) -> None:
    import hashlib

    for line in (finished.folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((finished.folder / name).read_bytes()).hexdigest() == digest
