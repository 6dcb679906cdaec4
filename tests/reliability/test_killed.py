"""Trainings killed at random moments end with the bits of one that was never stopped."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import small_config
from trainings import Server, arguments, kinds, outcome, same, serving, wait_for

import dhm

KINDS = ("cifar", "streamed", "search", "bernoulli", "together", "grid")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def finish(server: Server, given: list[str], together: int) -> None:
    assert set(server.start(*given, together=together).wait()) == {0}, server.log.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_runs_end_with_the_same_bits(
    kind: str, server: Server, tmp_path: Path, long: bool, record_property: Callable
) -> None:
    configs, together = kinds(tmp_path)[kind]
    whole, rng = tmp_path / "whole", random.Random(kind)
    began = time.monotonic()
    finish(server, arguments(configs, tmp_path, whole), together)
    lasts = time.monotonic() - began
    expected = [outcome(dhm.RunRecord.of(config, whole)) for config in configs]
    kills, rounds = 0, 0
    while kills < (30 if long else 2):
        runs_dir, rounds = tmp_path / f"killed{rounds}", rounds + 1
        given = arguments(configs, tmp_path, runs_dir)
        records = [dhm.RunRecord.of(config, runs_dir) for config in configs]
        while any(record.result is None for record in records):
            child = server.start(*given, together=together)
            time.sleep(rng.random() * lasts)
            child.send(signal.SIGKILL)
            ended = child.wait()
            kills += -signal.SIGKILL in ended
            if kills >= (30 if long else 2):
                break
        finish(server, given, together)
        for record, one in zip(records, expected, strict=True):
            assert same(outcome(record), one)
            assert not list(record.folder.glob(".*.partial"))
    record_property(f"kills of {kind}", kills)


def test_a_run_killed_five_times_ends_with_the_same_bits(server: Server, tmp_path: Path) -> None:
    """At random moments after random steps, and each time it goes on from where it stood."""
    config = small_config(
        arch="wrn", options={"depth": 10, "width": 1, "dropout": 0.3}, epochs=5, milestones=(2,), image_size=12
    )
    finish(server, arguments([config], tmp_path, tmp_path / "whole"), 1)
    record, given = dhm.RunRecord.of(config, tmp_path), arguments([config], tmp_path, tmp_path)
    rng = random.Random(0)
    for kills, target in enumerate(sorted(rng.sample(range(2, 40), 5))):  # of 50 steps
        child = server.start(*given)
        wait_for(lambda kills=kills, target=target: len(record.environment) > kills and steps_of(record) >= target)
        time.sleep(rng.random() * 0.05)
        child.send(signal.SIGKILL)
        assert child.wait() == [-signal.SIGKILL]
    assert record.result is None
    finish(server, given, 1)
    starts = [start["from"] for start in record.environment]
    assert starts == sorted(starts)
    assert [len(starts), starts[0], starts[1] > [0, 0]] == [6, [0, 0], True]
    assert same(outcome(record), outcome(dhm.RunRecord.of(config, tmp_path / "whole")))


def steps_of(record: dhm.RunRecord) -> int:
    """Steps of ten an epoch that a run's checkpoint stands for."""
    found = record.checkpoint()
    return 0 if found is None else found[1]["at"]["epoch"] * 10 + found[1]["at"]["step"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_first_and_says_how_to_go_on(
    number: signal.Signals, status: int, server: Server, tmp_path: Path
) -> None:
    """The step under way is ended and kept: what is trained after the signal is the next one."""
    configs, _ = kinds(tmp_path)["cifar"]
    finish(server, arguments(configs, tmp_path, tmp_path / "whole"), 1)
    record, given = (
        dhm.RunRecord.of(configs[0], tmp_path / "stopped"),
        arguments(configs, tmp_path, tmp_path / "stopped"),
    )
    child = server.start(*given)
    wait_for(lambda: record.begun)
    child.send(number)
    assert child.wait() == [status]
    assert "dhm: stopped; the same command goes on from here" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
    finish(server, given, 1)
    assert same(outcome(record), outcome(dhm.RunRecord.of(configs[0], tmp_path / "whole")))


def test_two_processes_stop_at_the_same_step(server: Server, tmp_path: Path) -> None:
    configs, together = kinds(tmp_path)["together"]
    record, given = dhm.RunRecord.of(configs[0], tmp_path / "a"), arguments(configs, tmp_path, tmp_path / "a")
    child = server.start(*given, together=together)
    wait_for(lambda: record.begun)
    child.send(signal.SIGTERM)
    assert child.wait() == [143, 143], server.log.read_text()
    finish(server, given, together)


def test_of_processes_on_one_grid_one_is_killed_and_nothing_stays_locked(server: Server, tmp_path: Path) -> None:
    """Four at once train each of four runs exactly once; one of them killed, the runs are finished all the same."""
    config = kinds(tmp_path)["bernoulli"][0][0]
    configs = [config.replace(seed=seed) for seed in range(4)]
    given = arguments(configs, tmp_path, tmp_path / "runs")
    records = [dhm.RunRecord.of(config, tmp_path / "runs") for config in configs]
    children = [server.start(*given) for _ in range(4)]
    wait_for(lambda: any(record.begun for record in records))
    children[0].send(signal.SIGKILL)
    assert [child.wait() for child in children] == [[-signal.SIGKILL], [0], [0], [0]]
    finish(server, given, 1)
    assert all(record.result is not None for record in records)
    assert sorted(len(record.environment) for record in records) in ([1, 1, 1, 1], [1, 1, 1, 2])
