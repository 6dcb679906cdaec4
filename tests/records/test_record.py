"""Damaged files of a record: one sentence, and once they are mended the training goes on from where it stood."""

from pathlib import Path

import pytest
from conftest import small_config

import dhm
from dhm.training.step import Trainer


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dhm.RunRecord:
    """A run that was stopped in its second epoch, with a checkpoint after every step."""
    step = Trainer.step

    def stopping(self: Trainer, epoch: int, *rest: object) -> object:
        if epoch == 1:
            raise KeyboardInterrupt
        return step(self, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            dhm.fit(small_config(), runs_dir=tmp_path, accelerator="cpu", progress=False, checkpoint_every=0)
    return dhm.RunRecord.of(small_config(), tmp_path)


@pytest.mark.parametrize("content", ["", "[", '[\n {\n  "started": "2026', "{}", "[1]", "\udce9"])
def test_an_environment_that_is_cut_short_loses_nothing(content: str, stopped: dhm.RunRecord, tmp_path: Path) -> None:
    file, options = stopped.folder / "env.json", {"runs_dir": tmp_path, "accelerator": "cpu", "progress": False}
    before = {other: other.read_bytes() for other in stopped.folder.iterdir() if other != file and other.suffix}
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        dhm.InputError, match=r"env\.json cannot be read \(.*\): put a whole copy there, or move it away"
    ):
        dhm.fit(small_config(), **options)
    assert {other: other.read_bytes() for other in before} == before
    file.unlink()
    assert dhm.fit(small_config(), **options).environment[-1]["from"] == [1, 0]


def test_an_environment_of_something_else_is_told(stopped: dhm.RunRecord, tmp_path: Path) -> None:
    (stopped.folder / "env.json").write_text("[{}]")
    with pytest.raises(dhm.InputError, match=r"env\.json is not what the checkpoint was made under: it is damaged"):
        dhm.fit(small_config(), runs_dir=tmp_path, accelerator="cpu", progress=False)


def test_a_result_or_metrics_cut_short_are_told(stopped: dhm.RunRecord) -> None:
    for name, read in (("result.json", "result"), ("metrics.jsonl", "metrics")):
        (stopped.folder / name).write_text('{"last": ')
        with pytest.raises(dhm.InputError, match=rf"{name} cannot be read"):
            getattr(stopped, read)
