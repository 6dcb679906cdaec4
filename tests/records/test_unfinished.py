"""A run set aside on one machine goes on on another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import small_config

import dhm
from dhm import __main__ as cli
from dhm import paths
from dhm.config import Config
from dhm.records import checkpoints, inside, unfinished
from dhm.records.record import RunRecord
from dhm.training import arithmetic
from dhm.training.step import Trainer

CONFIG = small_config(epochs=3, milestones=(2,), experiment="moved")


class Stop(Exception):
    pass


@pytest.fixture
def aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run stopped in its second epoch and set aside."""
    monkeypatch.setattr(paths, "unfinished_dir", lambda: tmp_path / "unfinished")
    step = Trainer.step

    def stopped(self: Trainer, epoch: int, number: int, *batch) -> list:
        if (epoch, number) == (1, 4):
            raise Stop
        return step(self, epoch, number, *batch)

    with monkeypatch.context() as only_here:
        only_here.setattr(Trainer, "step", stopped)
        with pytest.raises(Stop):
            fit(CONFIG, tmp_path / "first")
    assert cli.main(["keep", str(tmp_path / "first"), "--unfinished"]) == 0
    return tmp_path / "unfinished" / "moved" / CONFIG.name


def fit(config: Config, folder: Path, **options) -> RunRecord:
    return dhm.fit(config, runs_dir=folder, accelerator="cpu", progress=False, checkpoint_every=0.0, **options)


def weights(record: RunRecord) -> dict:
    return checkpoints.load(record.folder / "last.pt")["net"]


def assert_ends_as_never_stopped(record: RunRecord, tmp_path: Path) -> None:
    whole = fit(CONFIG, tmp_path / "whole")
    assert record.result["last"] == whole.result["last"]
    assert record.result["best"] == whole.result["best"]
    assert all((tensor == weights(whole)[name]).all() for name, tensor in weights(record).items())
    assert [entry["from"] for entry in record.environment] == [[0, 0], [1, 4]]


def test_by_its_configuration(aside: Path, tmp_path: Path) -> None:
    """On the command line, from wherever it lies."""
    elsewhere = tmp_path / "copied"
    aside.rename(elsewhere)
    given = ["train", "--config", str(elsewhere / "config.json"), "--runs-dir", str(tmp_path / "second")]
    assert cli.main([*given, "--accelerator", "cpu"]) == 0
    assert_ends_as_never_stopped(RunRecord.of(CONFIG, tmp_path / "second"), tmp_path)


def test_by_itself_and_once_only(aside: Path, tmp_path: Path) -> None:
    record = fit(CONFIG, tmp_path / "second")
    assert_ends_as_never_stopped(record, tmp_path)
    unfinished.take_over(record)  # its own checkpoint, which is ahead, stays
    assert checkpoints.load(record.folder / "last.pt")["at"]["epoch"] == 3
    unfinished.discard(CONFIG)
    assert not aside.exists()


def test_in_another_experiment(aside: Path, tmp_path: Path) -> None:
    """Which is no part of what a run is."""
    record = fit(CONFIG.replace(experiment="other"), tmp_path / "second", resume_from=aside)
    assert [entry["from"] for entry in record.environment] == [[0, 0], [1, 4]]
    assert RunRecord.read(record.folder).config.experiment == "other"


def test_another_run_is_let_alone(aside: Path, tmp_path: Path) -> None:
    record = fit(CONFIG.replace(seed=1), tmp_path / "second", resume_from=aside)
    assert [entry["from"] for entry in record.environment] == [[0, 0]]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(dhm.InputError, match=r"there is no folder .*nowhere"):
        fit(CONFIG, tmp_path / "second", resume_from=tmp_path / "nowhere")


def test_other_instructions_round_otherwise_and_are_told(aside: Path, tmp_path: Path) -> None:
    """What is promised of a run that moves to another kind of processor: the record says so; its bits may differ."""
    code = f"import dhm, json; dhm.fit(dhm.Config.from_dict(json.load(open({str(aside / 'config.json')!r}))), runs_dir="
    code += f"{str(tmp_path / 'second')!r}, accelerator='cpu', progress=False, resume_from={str(aside)!r})"
    held = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **held}, check=True, capture_output=True)
    record, whole = RunRecord.of(CONFIG, tmp_path / "second"), fit(CONFIG, tmp_path / "whole")
    assert record.environment[-1]["instructions"] == "AVX2"
    losses = [run.metrics[-1]["train"]["loss"] for run in (record, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_checkpoint_may_be_larger_than_what_else_is_read(
    aside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide network's is of a gigabyte."""
    size = (aside / "last.pt").stat().st_size
    monkeypatch.setattr(inside, "MOST", size - 1)
    unfinished.discard(CONFIG)
    unfinished.set_aside(RunRecord.of(CONFIG, tmp_path / "first"))
    record = RunRecord.of(CONFIG, tmp_path / "second")
    unfinished.take_over(record)
    assert [(folder / "last.pt").stat().st_size for folder in (aside, record.folder)] == [size, size]


def test_what_is_set_aside_of_a_run_under_way_fits_its_checkpoint(
    aside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A better epoch that ends between two of its files: its checkpoint would not have it tested again."""
    running, write = RunRecord.of(CONFIG, tmp_path / "first"), checkpoints.write
    earlier = (running.folder / "last.pt").read_bytes()

    def overtaken(path: Path, content: bytes) -> None:
        write(path, content)
        if path.name == "predictions-best.npz":
            write(running.folder / "last.pt", b"of a better epoch")

    monkeypatch.setattr(checkpoints, "write", overtaken)
    unfinished.set_aside(running)
    assert (aside / "last.pt").read_bytes() == earlier


def test_nothing_is_set_aside_without_a_checkpoint(tmp_path: Path) -> None:
    record = RunRecord.of(CONFIG, tmp_path)
    record.create()
    with pytest.raises(dhm.InputError, match=r"has no last\.pt: nothing of it can be gone on with"):
        unfinished.set_aside(record)


def test_arithmetic_is_fixed_when_a_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without bfloat16 goes on in it with what was begun in it."""
    monkeypatch.setattr(arithmetic, "native", lambda accelerator="auto": "bf16-mixed")
    begun = arithmetic.as_begun(CONFIG, tmp_path)
    RunRecord.of(begun, tmp_path).create()
    monkeypatch.setattr(arithmetic, "native", lambda accelerator="auto": "32-true")
    assert arithmetic.as_begun(CONFIG, tmp_path).precision == "bf16-mixed"
    assert arithmetic.as_begun(CONFIG.replace(seed=1), tmp_path).precision == "32-true"
    given = cli.parser().parse_args(["train", "--preset", "smoke", "--precision", "auto"])
    assert [config.precision for config in cli.configs_from(given)] == ["32-true"]


def test_arithmetic_of_this_machine() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.is_file():
        pytest.skip("this system does not list the processor's instructions")
    has_it = {"avx512_bf16", "amx_bf16", "bf16"} & set(flags.read_text().split())
    assert arithmetic.native("cpu") == ("bf16-mixed" if has_it else "32-true")
