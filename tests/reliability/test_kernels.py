"""Notebooks and widgets whose processes are ended from outside: nothing trains on, and the same command goes on."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from trainings import outcome, same, wait_for

import dhm
from dhm import paths
from dhm.notebook import KERNEL
from dhm.paper import recipes
from dhm.training.alone import is_trained_now
from dhm.training.step import Trainer
from dhm.widgets import live

NAME, CONFIGS = "figure4_correlation", recipes.table1("quick", ["cifar_resnet"], ["dsl", "dhm"], [0])
"""A notebook, and the runs it trains with this seed: each lasts longer than to find its processes."""
COMMAND = ["notebook", NAME, "-p", "seeds", "[0]"]
OPTIONS = {"accelerator": "cpu", "progress": False}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a process that finds a clone with one notebook, which ends with its training."""
    clone = tmp_path / "clone"
    shutil.copytree(Path(dhm.__file__).parent, clone / "dhm")
    for name in ("pyproject.toml", "data"):
        (clone / name).symlink_to(paths.root() / name)
    page = nbformat.read(paths.root() / "notebooks" / f"{NAME}.ipynb", as_version=4)
    training = next(number for number, cell in enumerate(page.cells) if "fit_all(" in cell.source)
    page.cells = page.cells[: training + 1]
    (clone / "notebooks").mkdir()
    nbformat.write(page, clone / "notebooks" / f"{NAME}.ipynb")
    folders = {"DHM_RUNS": str(tmp_path), "DHM_FIGURES": str(tmp_path / "figures"), "PYTHONPATH": str(clone)}
    return {**os.environ, **folders, "DHM_PRESET": "quick", "OMP_NUM_THREADS": "1"}


def under(pid: int) -> list[psutil.Process]:
    """All that a process has started, and what these have."""
    return psutil.Process(pid).children(recursive=True)


def trains(process: psutil.Process) -> bool:
    """Whether there is more of it than its number, which nobody may have asked about yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def stopped(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable]:
    """Starts a command, ends it while a run is in mid-training, and tells what it came to and that run."""
    records = [dhm.RunRecord.of(config, tmp_path) for config in CONFIGS]
    running: list[psutil.Process] = []

    def under_way(starts: list[int]) -> list[dhm.RunRecord]:
        """Runs in mid-training by a process that has begun since there were so many starts."""
        return [
            record for record, before in zip(records, starts, strict=True)
            if record.begun and record.result is None and len(record.environment) > before
        ]  # fmt: skip

    def stop(command: list[str], end: Callable) -> tuple[int, str, dhm.RunRecord]:
        while True:  # again if the run has ended before its process did
            starts = [len(record.environment) for record in records]
            with subprocess.Popen(
                [sys.executable, "-m", "dhm", *command], env=environment, cwd=tmp_path, text=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            ) as process:  # fmt: skip
                wait_for(lambda starts=starts: under_way(starts), 120)
                running[:] = under(process.pid)
                end(process.pid)
                told = process.communicate(timeout=60)[1]  # what holds its standard error has ended too
            wait_for(lambda: not any(map(trains, running)))
            for record in under_way(starts):
                return process.returncode, told, record

    yield stop
    for left in filter(trains, running):
        left.kill()


def terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_all(pid: int) -> None:
    for one in (*under(pid), psutil.Process(pid)):
        one.kill()


def test_a_killed_notebook_goes_on(stopped: Callable, environment: dict[str, str], tmp_path: Path) -> None:
    """Killed alone, when its kernel must not train on, and with its kernel; what it trained ends with the same bits."""
    stood = []
    for end in (kill, kill_all):
        status, _, record = stopped(COMMAND, end)
        assert status == -signal.SIGKILL
        stood.append(record)
    subprocess.run([sys.executable, "-m", "dhm", *COMMAND], env=environment, cwd=tmp_path, check=True)
    for record in stood:
        assert len(record.environment) > 1
        assert [0, 0] not in [start["from"] for start in record.environment[1:]]
        assert same(outcome(record), outcome(dhm.fit(record.config, runs_dir=tmp_path / "whole", **OPTIONS)))
    page = nbformat.read(tmp_path / "notebooks" / f"{NAME}.ipynb", as_version=4)
    nbformat.validate(page)
    cells = [cell for cell in page.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert f"[{len(CONFIGS)}/{len(CONFIGS)}]" in str(cells[-1].outputs)


def test_a_notebook_ends_with_what_runs_it_and_saves_on_sigterm(stopped: Callable) -> None:
    status, told, _ = stopped(["notebook", "all"], kill)
    assert status == -signal.SIGKILL, told
    status, told, _ = stopped(COMMAND, terminate)
    assert status == 128 + signal.SIGTERM, told
    assert told.splitlines()[-1] == "dhm: stopped; the same command goes on from the last checkpoint"


def test_a_training_that_a_widget_started_ends_with_its_kernel(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyter_client.manager import start_new_kernel

    config = live.configuration(epochs=60, preset="smoke")
    record = dhm.RunRecord.of(config, tmp_path)
    manager, client = start_new_kernel(kernel_name=KERNEL, env=environment, cwd=str(tmp_path))
    try:
        client.execute_interactive(
            f"""from dhm.widgets import live
explorer = live.explore({str(tmp_path)!r}, "smoke")
_, epochs, _, begin, _ = explorer.children[0].children
epochs.value = {config.epochs}
begin.click()""",
            timeout=60,
        )
        kernel = manager.provisioner.pid
        wait_for(lambda: record.begun, 120)
        training = under(kernel)
        assert any(str(record.folder) in " ".join(one.cmdline()) for one in training)
        assert is_trained_now(record)
        os.kill(kernel, signal.SIGKILL)
        wait_for(lambda: not any(map(trains, training)))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert record.result is None
    assert not is_trained_now(record)
    position = record.checkpoint()[1]["at"]
    assert position["epoch"] > 0

    def reached(self: Trainer, epoch: int, step: int, *rest: object) -> None:
        assert (epoch, step) == (position["epoch"], position["step"])
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", reached)
    with pytest.raises(KeyboardInterrupt):
        dhm.fit(config, runs_dir=tmp_path, **OPTIONS)
