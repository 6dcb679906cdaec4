"""Two processes, killed and started again, train as one that accumulates the same two shards."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import Logger
from lightning_fabric.plugins import MixedPrecision

import dhm
from dhm.errors import NonFiniteLoss
from dhm.records import checkpoints
from dhm.training import loop, position
from dhm.training.evaluation import evaluate
from dhm.training.parallel import connect
from dhm.training.step import Trainer, prepare

CONFIG = dhm.Config.from_dict({
    "arch": "imagenet_resnet", "options": {"depth": 18, "base": 4}, "image_size": 64, "augment": "fixed_scale",
    "classes": 3, "train_per_class": 11, "batch_size": 8, "epochs": 2, "milestones": (1,), "lr": 0.02,
})  # fmt: skip
"""33 images in batches of 8: of the last, a single image, the second process has none."""
CHILD = """
import json, os, sys, dhm
open(f"{sys.argv[2]}/pid{os.environ['RANK']}", "w").write(str(os.getpid()))
dhm.fit(dhm.Config.from_dict(json.loads(sys.argv[1])), runs_dir=sys.argv[2], accelerator="cpu", progress=False,
        checkpoint_every=0.0)
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(*command: str) -> subprocess.Popen:
    """Two processes on this host, in a process group of their own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen([*TORCHRUN, *command], env=environment, start_new_session=True, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dhm.RunRecord:
    """The record of two processes that were killed after a few steps, and started again by the command a user types."""
    folder = tmp_path_factory.mktemp("pair")
    record = dhm.RunRecord.of(CONFIG, folder)
    (folder / "child.py").write_text(CHILD)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    child = start(str(folder / "child.py"), json.dumps(CONFIG.to_dict()), str(folder))
    while child.poll() is None and not (record.folder / "last.pt").is_file():
        time.sleep(0.01)
    child.kill()
    for file in folder.glob("pid*"):  # torchrun starts its processes in sessions of their own
        os.kill(int(file.read_text()), signal.SIGKILL)
    child.communicate()
    assert record.result is None
    again = start(
        "-m", "dhm", "train", "--config", str(folder / "config.json"), "--runs-dir", str(folder), "--accelerator", "cpu"
    )
    out, errors = again.communicate()
    assert again.returncode == 0, errors
    assert out.count("top-1 error") == 1  # one of the two speaks
    return record


def test_killed_pair_goes_on(pair: dhm.RunRecord) -> None:
    first, second = pair.environment
    assert first["from"] == [0, 0]
    assert second["from"] > [0, 0]
    assert [line["epoch"] for line in pair.metrics] == [0, 1]


def test_two_processes_are_one_that_accumulates(pair: dhm.RunRecord, tmp_path: Path) -> None:
    alone = dhm.fit(CONFIG, runs_dir=tmp_path, accelerator="cpu", accumulate=2, progress=False)
    assert [pair.environment[0]["devices"], alone.environment[0]["accumulate"]] == [2, 2]
    first, second = (checkpoints.load(run.folder / "last.pt") for run in (pair, alone))
    parameters = [key for key in first["net"] if "running" not in key and "num_batches" not in key]
    start_weights = dhm.zoo.network_of(CONFIG, 3).state_dict()
    for key in parameters:
        torch.testing.assert_close(first["net"][key], second["net"][key], rtol=1e-3, atol=1e-5)
    moved = [key for key in parameters if not torch.allclose(first["net"][key], start_weights[key], atol=1e-3)]
    assert len(moved) > len(parameters) / 2
    for ours, theirs in zip(pair.metrics, alone.metrics, strict=True):
        assert ours["train"].keys() == theirs["train"].keys()
        for term, value in theirs["train"].items():
            assert ours["train"][term] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_every_test_image_is_judged_once(pair: dhm.RunRecord) -> None:
    together, alone = pair.predictions("last"), evaluate(dhm.load_trained(pair), CONFIG, accelerator="cpu")
    assert len(together.labels) == 600
    np.testing.assert_array_equal(together.labels, alone.labels)
    np.testing.assert_array_equal(together.predicted, alone.predicted)
    np.testing.assert_allclose(together.nll, alone.nll, rtol=1e-4, atol=1e-5)


def test_batch_that_cannot_be_divided_is_told(tmp_path: Path) -> None:
    with pytest.raises(dhm.InputError, match="a batch of 8 cannot be divided over 1 devices with accumulate 9"):
        dhm.fit(CONFIG, runs_dir=tmp_path, accelerator="cpu", accumulate=9)


def test_accumulation_without_batch_norm_changes_rounding_alone() -> None:
    """One step from the same weights, batch norm in eval mode: the gradient of the whole batch."""
    weights = []
    for accumulate in (1, 3):
        trainer = prepare(CONFIG, connect("cpu", "32-true"), accumulate=accumulate)
        trainer.net.train()
        for module in trainer.net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        for step, (images, labels) in zip((0, 4), (list(trainer.batches(0))[i] for i in (0, 4)), strict=True):
            trainer.step(0, step, images, labels)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.net.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_half_precision_goes_on_with_its_scale(tmp_path: Path) -> None:
    """A CPU computes in float16 only for a test; the scale of the gradients is a GPU's."""
    record = dhm.RunRecord.of(CONFIG, tmp_path)
    record.create()

    def trainer() -> Trainer:
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu")])
        fabric.launch()
        return prepare(CONFIG, fabric)

    first = trainer()
    first.step(0, 0, *next(first.batches(0)))
    scaler = first.fabric.strategy.precision.scaler
    scaler.update(2.0**9)
    position.save(first, record, position.Position())
    record.write_json("env.json", [{"data": first.data.summary()}])
    second = trainer()
    assert second.state()["scale"]["scale"] != 2.0**9
    position.resume(second, record, second.data.summary())
    assert second.state()["scale"] == first.state()["scale"]
    assert second.state()["scale"]["scale"] == 2.0**9


def test_precision_a_device_lacks_is_told(tmp_path: Path) -> None:
    with pytest.raises(dhm.InputError, match="cpu has no 16-mixed precision; take bf16-mixed"):
        dhm.fit(CONFIG.replace(precision="16-mixed"), runs_dir=tmp_path, accelerator="cpu")


def test_float32_is_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which another library allowed it, as torch itself does for convolutions."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("medium")
    connect("cpu", "32-true")
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_bfloat16_trains(tmp_path: Path) -> None:
    config = CONFIG.replace(precision="bf16-mixed", train_per_class=8)
    record = dhm.fit(config, runs_dir=tmp_path, accelerator="cpu", progress=False)
    assert "scale" not in checkpoints.load(record.folder / "last.pt")


@pytest.mark.parametrize("lr", [0.02, 1e20])
def test_curves_are_closed_however_a_run_ends(lr: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Curves(Logger):
        name, version, closed = "curves", 0, 0

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            assert not self.closed

        def log_hyperparams(self, params: object) -> None: ...

        def finalize(self, status: str) -> None:
            self.closed += 1

    curves = Curves()
    monkeypatch.setattr(loop, "_tensorboard", lambda record: curves)
    breaks = pytest.raises(NonFiniteLoss) if lr > 1 else nullcontext()
    with breaks:
        dhm.fit(CONFIG.replace(lr=lr), runs_dir=tmp_path, accelerator="cpu", progress=False, tensorboard=True)
    assert curves.closed == 1


def test_tensorboard_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(dhm.InputError, match="pip install tensorboard"):
        dhm.fit(CONFIG, runs_dir=tmp_path, accelerator="cpu", tensorboard=True)
