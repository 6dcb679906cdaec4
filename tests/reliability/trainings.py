"""Small trainings of each kind, to be stopped at any moment, and a process that starts them without importing torch
anew.

As a program it reads lines of JSON: for the arguments of `dhm`'s command line it forks a child and tells its number;
for numbers of children it tells, as soon as these have ended, how.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from conftest import small_config, write_image

import dhm
from dhm.__main__ import main
from dhm.records import checkpoints

NOT_COMPARED = ("seconds", "starts")
"""What two runs with the same bits may differ in: when they were made, and how long they took."""


@dataclass
class Child:
    """A training under way in a process of its own; of two that train together both."""

    pids: list[int]
    server: "Server"

    def send(self, number: int) -> None:
        """A signal to all its processes that are still there."""
        for pid in self.pids:
            os.kill(pid, number)  # until `wait` the number is no other's

    def wait(self) -> list[int]:
        """How each process ended: its exit status, or minus the signal that ended it."""
        return self.server.ask(self.pids)


@dataclass
class Server:
    """Starts trainings, also several at once; what they print goes to a file."""

    process: subprocess.Popen
    log: Path

    def start(self, *arguments: str, together: int = 1, limit: int = 0) -> Child:
        """Begin `python -m dhm train` with these arguments.

        Args:
            together: processes that train one run, by gloo.
            limit: bytes of the largest file that may be written, 0 for any.
        """
        self.log.write_text("")
        asked = {"arguments": ["train", *arguments], "together": together, "limit": limit, "log": str(self.log)}
        return Child(self.ask(asked), self)

    def ask(self, what: dict | list[int]) -> list[int]:
        """Its answer to a line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server for as long as its block lasts."""
    paths = [str(Path(dhm.__file__).parents[1]), str(Path(__file__).parents[1])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Server(process, folder / "said.txt")
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def kinds(folder: Path) -> dict[str, tuple[list[dhm.Config], int]]:
    """Runs of every kind by its name, and by how many processes each is trained together."""
    for label in range(3):
        for i in range(8):
            write_image(folder / "set" / "train" / f"c{label}" / f"{i}.jpg", 10 * label + i)
        write_image(folder / "set" / "val" / f"c{label}" / "0.jpg", 100 + label)
    weights = folder / "weights.pth"
    if not weights.is_file():
        torch.manual_seed(0)
        torch.save(dhm.create_model("imagenet_resnet", 10, "none", depth=10, base=4).backbone.state_dict(), weights)
    wide = {"arch": "wrn", "options": {"depth": 10, "width": 1, "dropout": 0.3}, "train_per_class": 26, "epochs": 4}
    streamed = {
        "arch": "imagenet_resnet", "options": {"depth": 10, "base": 4}, "dataset": str(folder / "set"),
        "augment": "scale", "image_size": 33, "classes": None, "train_per_class": None, "batch_size": 6, "epochs": 4,
    }  # fmt: skip
    search = {
        "arch": "imagenet_resnet", "options": {"depth": 10, "base": 4}, "dataset": "pedestrians", "image_size": 32,
        "classes": 3, "train_per_class": None, "optimizer": "amsgrad", "lr": 3e-3, "batch_size": 8, "epochs": 4,
        "weights": str(weights), "frozen_epochs": 2,
    }  # fmt: skip
    few = {"train_per_class": 20, "epochs": 4}
    return {
        "cifar": ([small_config(**wide)], 1),
        "streamed": ([small_config(**streamed)], 1),
        "search": ([small_config(**search)], 1),
        "bernoulli": ([small_config(**few, mimic_probability=0.5)], 1),
        "together": ([small_config(**few, seed=2)], 2),
        "grid": ([small_config(**few, seed=seed) for seed in (3, 4)], 1),
    }


def arguments(configs: list[dhm.Config], folder: Path, runs_dir: Path) -> list[str]:
    """The command line of runs that differ in their seed alone, a checkpoint after every step."""
    file = folder / "asked.json"
    file.write_text(json.dumps(configs[0].to_dict()))
    seeds = [str(config.seed) for config in configs]
    return ["--config", str(file), "--seed", *seeds, "--runs-dir", str(runs_dir), "--accelerator", "cpu",
            "--workers", "1" if configs[0].streamed else "0"]  # fmt: skip


def outcome(record: dhm.RunRecord) -> dict:
    """Everything a run leaves: weights, optimizer, metrics, result and predictions."""
    files = {file.name: checkpoints.load(file) for file in record.folder.glob("*.pt")}
    arrays = {which: record.arrays(f"predictions-{which}.npz") for which in ("last", "best")}
    return {**files, "metrics": record.metrics, "result": record.result, "arrays": arrays}


def same(a: object, b: object) -> bool:
    """Whether two outcomes are equal to the last bit."""
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key not in NOT_COMPARED)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    if hasattr(a, "tobytes"):
        return a.tobytes() == b.tobytes()  # type: ignore[attr-defined, union-attr]
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b  # type: ignore[arg-type]


def _child(asked: dict, rank: int) -> None:
    """Train, in a process just forked, and end it."""
    out = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(out, stream)
    if asked["together"] > 1:
        os.environ.update({
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(asked["together"]), "GROUP_RANK": "0",
            "LOCAL_WORLD_SIZE": str(asked["together"]), "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": asked["port"], "TORCHELASTIC_RUN_ID": "reliability",
        })  # fmt: skip
    if asked["limit"]:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["limit"], asked["limit"]))
    fit = dhm.training.grid.fit
    dhm.training.grid.fit = lambda config, **options: fit(config, checkpoint_every=0.0, **options)
    status = 70
    try:
        status = main(asked["arguments"])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _free_port() -> str:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _serve() -> None:
    print("ready", flush=True)
    while line := sys.stdin.readline():
        asked = json.loads(line)
        if isinstance(asked, list):  # until then what has ended keeps its number
            answer = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in asked]
        else:
            asked["port"], answer = _free_port(), []
            for rank in range(asked["together"]):
                if (pid := os.fork()) == 0:
                    _child(asked, rank)
                answer.append(pid)
        print(json.dumps(answer), flush=True)


def wait_for(condition: object, seconds: float = 60.0) -> None:
    """Until something is so; an AssertionError if it is not in time."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


if __name__ == "__main__":
    import dhm.training.grid

    _serve()
