"""A training watched while it runs, here or elsewhere: its record is read again every second."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ipywidgets

from dhm import paths
from dhm.analysis.variants import spoken
from dhm.config import METHODS, Config
from dhm.paper import recipes
from dhm.paper.presets import resolve
from dhm.plots.runs import overview
from dhm.records.record import RunRecord
from dhm.records.store import find
from dhm.widgets.runs import called, named
from dhm.widgets.view import WIDE, Screen, View, pick, row

EVERY = 1.0
"""Seconds between two looks at a record."""
LOG = "training.log"
"""What a training started here says, in the folder of its record."""


def configuration(method: str = "dhm", seed: int = 0, epochs: int = 12, preset: str = "") -> Config:
    """A small run to watch: the preset's smallest ResNet for so many epochs, the learning rate falling twice."""
    small = preset if resolve(preset) == "smoke" else "quick"
    changes = {"epochs": epochs, "milestones": (epochs // 2, epochs * 5 // 6), "experiment": "live"}
    return recipes.table1(small, ["cifar_resnet"], [method], [seed], **changes)[0]


def start(record: RunRecord) -> subprocess.Popen:
    """Train a record's configuration in a process of its own, which ends with the kernel; a stopped run goes on where
    it was, and a finished one is not trained again.

    Raises:
        InputError: the record's folder cannot be written to.
    """
    record.create()
    command = [sys.executable, "-m", "dhm.tied", "train", "--config", str(record.folder / "config.json")]
    with open(record.folder / LOG, "a") as log:  # another process may be training this run, and write there
        process = subprocess.Popen(
            [*command, "--runs-dir", str(record.folder.parents[1])], stdin=subprocess.PIPE, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, "PYTHONPATH": _import_path()},
        )  # fmt: skip
    return process


def _import_path() -> str:
    """Where the child finds this same package, first of all."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])


def stop(process: subprocess.Popen) -> None:
    """End a training that was started here; it saves first."""
    if process.poll() is None:
        process.terminate()


def unfinished(runs_dir: str | Path | None = None) -> dict[str, RunRecord]:
    """Runs without a result, here or on any machine that shares the folder, the one written to last first."""
    found = [record for record in find(paths.runs_dir(runs_dir)) if record.result is None]
    found.sort(key=_written, reverse=True)
    return {f"{r.config.experiment} · {r.config.network} · {called(r)} · {r.config.digest}": r for r in found}


def _written(record: RunRecord) -> float:
    """When a record was last written to."""
    files = (record.folder / name for name in ("config.json", "env.json", "metrics.jsonl", "last.pt"))
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def view(record: RunRecord, running: bool | None = None) -> View:
    """A run as far as it is.

    Args:
        running: whether its process runs, None where that is not known: it was started elsewhere.
    """
    metrics, config, done = record.metrics, record.config, record.result is not None
    words = f"{called(record)}, {config.network} on {config.dataset}: epoch {len(metrics)} of {config.epochs}"
    if done:
        words += ", finished."
    elif running is None:
        words += f", last written {max(0, int(time.time() - _written(record)))} seconds ago."
    else:
        words += ", under way." if running else ", stopped; started again, it goes on from its last checkpoint."
    log = record.folder / LOG
    if running is False and not done and log.is_file():
        words += f" Its last words: {log.read_text().strip()[-300:] or 'none'}"
    if not metrics:
        return View(words + ("" if done or running is False else " The first epoch has not ended yet."))
    return View(words, overview({named(record): metrics}, config.epochs))


def explore(runs_dir: str | Path | None = None, preset: str = "") -> ipywidgets.VBox:
    """Start a small training or choose one that is under way, watch it, stop it. The kernel stays free meanwhile."""
    method = pick("method", [(spoken(name), name) for name in METHODS], "dhm")
    epochs = ipywidgets.IntSlider(value=12, min=2, max=60, description="epochs", style=WIDE, layout={"width": "260px"})
    seed = ipywidgets.BoundedIntText(value=0, min=0, max=9999, description="seed", style=WIDE)
    seed.layout.width = "120px"
    begin, end = _button("Start training", "play"), _button("Stop", "stop")
    others = pick("under way elsewhere", ["none"], "none", "auto")
    look, again = _button("Watch", "eye"), _button("Look again", "refresh")
    screen = Screen()
    own: dict[Path, subprocess.Popen] = {}  # trainings started here, by the folder of their record
    listed: dict[str, RunRecord] = {}
    shown: dict[str, Any] = {"record": None, "task": None}

    def refresh(_: Any = None) -> None:
        listed.clear()
        listed.update(unfinished(runs_dir))
        others.options = list(listed) or ["none"]
        look.disabled = not listed

    def show(record: RunRecord) -> bool:
        """Draw; whether there is more to come."""
        process = own.get(record.folder)
        running = None if process is None else process.poll() is None
        more = record.result is None and running is not False  # asked first: what ends while it is drawn is drawn again
        screen.show(view(record, running))
        return more

    async def follow(record: RunRecord) -> None:
        while show(record):
            await asyncio.sleep(EVERY)
        end.disabled = True
        refresh()

    def watch(record: RunRecord) -> None:
        leave()
        shown["record"], end.disabled = record, False
        try:
            shown["task"] = asyncio.get_running_loop().create_task(follow(record))
        except RuntimeError:  # no kernel
            show(record)

    def leave() -> None:
        if shown["task"] is not None:
            shown["task"].cancel()

    def on_begin(_: Any) -> None:
        config = configuration(method.value, seed.value, epochs.value, preset)
        record = RunRecord.of(config, runs_dir)
        if record.folder not in own or own[record.folder].poll() is not None:
            own[record.folder] = start(record)
        watch(record)

    def on_look(_: Any) -> None:
        if others.value in listed:
            watch(listed[others.value])

    def on_end(_: Any) -> None:
        """Stop the training if it is ours, else only the watching."""
        if shown["record"] is not None and shown["record"].folder in own:
            stop(own[shown["record"].folder])
        else:
            leave()
            end.disabled = True

    begin.on_click(on_begin)
    end.on_click(on_end)
    look.on_click(on_look)
    again.on_click(refresh)
    end.disabled = True
    refresh()
    return ipywidgets.VBox([row(method, epochs, seed, begin, end), row(others, look, again), *screen.parts])


def _button(words: str, icon: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=words, icon=icon, layout={"width": "max-content"})
