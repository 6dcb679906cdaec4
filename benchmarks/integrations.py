"""The programs of docs/integrations.md, as they were and as they become: read from the page, trained, compared.

    pip install accelerate 'pytorch-lightning>=2.6.4'                     # what is not there is left out
    python benchmarks/integrations.py > lines.jsonl                       # a line for each training
    python benchmarks/integrations.py --table < lines.jsonl

Read: top-1 accuracy of B0 on the test images after training, percent, for each seed.
"""

import argparse
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from dhm import data, paths
from dhm.config import Config

PAGE = paths.root() / "docs" / "integrations.md"
PROGRAMS = Path(__file__).parent / "programs"
OWN, STALLED = "A loop of your own", "When DHM stalls"
PATCHED = {"timm's `train.py`": "timm_train.py",
           "torchvision's `references/classification/train.py`": "torchvision_train.py"}  # fmt: skip
NEEDS = {"accelerate": "accelerate", "Lightning": "pytorch_lightning", "timm's `train.py`": "timm"}
PARALLEL = ("DistributedDataParallel", "accelerate")
SETTINGS = {"Lightning": {"accelerator": "cpu", "logger": False, "enable_checkpointing": False,
                          "enable_progress_bar": False, "enable_model_summary": False}}  # fmt: skip
RATES, SEEDS, EPOCHS, BATCH, CLASSES = (0.1, 0.02), range(5), 2, 32, 4


class Recipe(NamedTuple):
    """A program of the page.

    Attributes:
        block: the difference as it is printed.
        before, after: the program's source.
        changed: lines that are new or take another's place.
    """

    block: str
    before: str
    after: str
    changed: int


def recipes() -> dict[str, Recipe]:
    """Every program by the title of its section."""
    found: dict[str, Recipe] = {}
    for title, block in re.findall(r"^## (.+?)\n.*?^```diff\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        hunks = re.split(r"^@@.*\n", block, flags=re.MULTILINE)
        hunks = hunks[block.startswith("---") :]
        if title in PATCHED:
            before = (PROGRAMS / PATCHED[title]).read_text()
        else:
            before = found[OWN].after if title == STALLED else _side(block, "-")
        after = before
        for old, new in ((_side(hunk, "-"), _side(hunk, "+")) for hunk in hunks):
            if after.count(old) != 1:
                raise ValueError(f"under {title} these lines are there {after.count(old)} times, not once:\n{old}")
            after = after.replace(old, new)
        changed = sum(line.startswith("+") for hunk in hunks for line in hunk.splitlines())
        found[title] = Recipe(block, before, after, changed)
    return found


def _side(hunk: str, sign: str) -> str:
    """Lines of a difference that stay and those with a sign."""
    return "".join(line[1:] or "\n" for line in hunk.splitlines(keepends=True) if line[0] in f" \n{sign}")


def program(title: str, changed: bool) -> Callable[..., nn.Module]:
    """The `train(network, loader, lr, epochs, **settings)` of a program; it gives the network back."""
    recipe, scope = recipes()[title], {"__name__": "recipe"}
    exec(compile(recipe.after if changed else recipe.before, title, "exec"), scope)
    return scope["train"]


class Block(nn.Module):
    """A residual block of one convolution."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(given, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.short = nn.Conv2d(given, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.norm(self.conv(x)) + self.short(x)).relu()


def network(seed: int, classes: int = CLASSES) -> nn.Module:
    """Four convolutions at three resolutions, the last 256 channels wide: wide features are what makes DHM stall."""
    torch.manual_seed(seed)
    blocks = Block(16, 16, 1), Block(16, 64, 2), Block(64, 256, 2)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, classes)
    )


def images() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images: 14x14, four classes of the embedded set."""
    config = {"arch": "resnet32", "dataset": "fashion-mnist-mini", "image_size": 14, "classes": CLASSES,
              "train_per_class": 250, "milestones": ()}  # fmt: skip
    sets = data.load(Config.from_dict(config))
    train, test = ((part.normalise(part.pixels).contiguous(), part.labels) for part in (sets.train, sets.test))
    return TensorDataset(*train), TensorDataset(*test)


class Share:
    """Of each batch the images of this process."""

    def __init__(self, loader: DataLoader, rank: int, world: int) -> None:
        self.loader, self.rank, self.world = loader, rank, world

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for batch in self.loader:
            yield [tensor[self.rank :: self.world] for tensor in batch]


def trained(
    title: str,
    changed: bool,
    net: nn.Module,
    images: TensorDataset,
    lr: float,
    epochs: int,
    seed: int = 0,
    shuffle: bool = True,
    **settings,
) -> nn.Module:
    """A network after its training by a program, in this process or as one of several that share each batch."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(images, BATCH // (world if title == "accelerate" else 1), shuffle=shuffle, generator=order)
    if title == "DistributedDataParallel":
        loader = Share(loader, rank, world)
        if not distributed.is_initialized():
            distributed.init_process_group("gloo")
    torch.manual_seed(seed)
    return program(title, changed)(net, loader, lr, epochs, **SETTINGS.get(title, {}), **settings)


def accuracies(title: str, seeds: Iterable[int], rates: Iterable[float]) -> Iterator[dict]:
    """Trainings of a program on the small set."""
    train, test = images()
    pixels, labels = test.tensors
    for seed, lr, changed in product(seeds, rates, (False, True)):
        net = trained(title, changed, network(seed), train, lr, EPOCHS, seed).eval()
        with torch.no_grad():
            right = (net(pixels).argmax(1) == labels).double().mean()
        yield {"program": title, "lr": lr, "changed": changed, "seed": seed, "accuracy": round(100 * float(right), 2)}


def side_by_side(command: list[str], world: int = 2, limit: float | None = None) -> list[str]:
    """What processes print that find each other by the variables torchrun sets; none outlives `limit` seconds."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    given = os.environ | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    given |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": str(world)}
    each = [given | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    started = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for env in each]
    try:
        said = [process.communicate(timeout=limit)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    if any(process.returncode for process in started):
        raise RuntimeError(f"a process of {command} failed")
    return said


def table(lines: Iterable[str]) -> Iterator[str]:
    """Mean, lowest and highest over the seeds, by program, rate and method."""
    found: dict[tuple[str, float, bool], list[float]] = {}
    for line in map(json.loads, lines):
        found.setdefault((line["program"], line["lr"], line["changed"]), []).append(line["accuracy"])
    yield "| program | changed lines | " + " | ".join(f"before, {lr:g} | after, {lr:g}" for lr in RATES) + " |"
    yield "|---|---:|" + "---|" * 2 * len(RATES)
    for title, recipe in recipes().items():
        cells = [found.get((title, lr, changed), []) for lr in RATES for changed in (False, True)]
        shown = [f"{mean(cell):.1f} ({min(cell):.1f} to {max(cell):.1f})" if cell else "" for cell in cells]
        yield f"| {title} | {recipe.changed} | {' | '.join(shown)} |"


def main() -> None:
    """Train what can be trained here, or print the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--program", help="this one alone, in this process")
    command.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    command.add_argument("--rates", type=float, nargs="*", default=list(RATES))
    command.add_argument("--table", action="store_true", help="of the lines on standard input")
    given = command.parse_args()
    if given.table:
        print(*table(sys.stdin), sep="\n")
    elif given.program:
        for line in accuracies(given.program, given.seeds, given.rates):
            if os.environ.get("RANK", "0") == "0":
                print(json.dumps(line), flush=True)
    else:
        for title in recipes():
            if importlib.util.find_spec(NEEDS.get(title, "torch")):
                seeds, rates = map(str, given.seeds), map(str, given.rates)
                start = [sys.executable, __file__, "--program", title, "--seeds", *seeds, "--rates", *rates]
                print(side_by_side(start, world=2 if title in PARALLEL else 1)[0], end="", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    main()
