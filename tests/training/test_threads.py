"""Threads of the processor: as many as a step has work for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import small_config

import dhm
from dhm.flops import flops
from dhm.training import threads
from dhm.training.estimate import estimate
from dhm.training.parallel import connect
from dhm.training.step import prepare

CONFIG = small_config(epochs=1)


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch):
    """A processor of four threads, none of them asked for."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("share", "accumulate", "count"), [(0.5, 1, 1), (1.01, 1, 1), (3.01, 1, 3), (9, 1, 4), (7, 2, 3)]
)
def test_one_for_each_so_many_multiply_adds(
    share: float, accumulate: int, count: int, four: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward once and backward twice but for the first convolution, whose image needs no gradient."""
    trainer = prepare(CONFIG, connect("cpu", "32-true"), accumulate=accumulate)
    first = 8 * 8 * 16 * 3 * 9
    work = (3 * sum(flops(trainer.net, 8).values()) - first) * CONFIG.batch_size
    monkeypatch.setattr(threads, "WORK", work / share)
    with threads.by_work(trainer) as chosen:
        assert chosen == torch.get_num_threads() == count
    assert torch.get_num_threads() == 4


def test_the_environment_overrules_it(four: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with threads.by_work(prepare(CONFIG, connect("cpu", "32-true"))) as chosen:
        assert chosen == 4
    assert estimate(CONFIG, 1, "cpu").threads == 4


START = "import json, sys, dhm; c = dhm.Config.from_dict(json.loads(sys.argv[1])); dhm.fit(c, runs_dir=sys.argv[2])"


def test_a_small_network_takes_one_and_ends_with_the_bits_of_one(tmp_path: Path) -> None:
    """Whatever the machine has; its record tells the number."""
    plain = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    results = []
    for name, environment in (("chosen", plain), ("asked", {**plain, "OMP_NUM_THREADS": "1"})):
        command = [sys.executable, "-c", START, json.dumps(CONFIG.to_dict()), str(tmp_path / name)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        record = dhm.RunRecord.of(CONFIG, tmp_path / name)
        assert json.loads((record.folder / "env.json").read_text())[0]["threads"] == 1
        results.append(torch.load(record.folder / "best.pt")["net"])
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name
