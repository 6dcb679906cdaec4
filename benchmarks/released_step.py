"""A training step here against the same step of the authors' released network, by turns in one process.

    OMP_NUM_THREADS=1 python benchmarks/released_step.py FOLDER [--rounds 10] [--batch-size 128]

FOLDER is a clone of github.com/d-li14/DHM. ResNet-32 with ten classes on one batch of 32x32 images in float32, on the
processor: forward, loss, backward, update. The released program computes all classifiers whatever is trained, takes the
divergences of the pairs one after the other, and keeps images and weights contiguous. Its network is its own; its loss
is written here, by torch's `kl_div`; its loader, meters and progress bar are left out. Seconds of the processor.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ratios import interleaved, ratio
from torch.nn import functional as F

from dhm import Config
from dhm.config import METHODS
from dhm.training.parallel import connect
from dhm.training.step import prepare

CLASSES = 10  # those of the embedded images, which a training here is prepared for


def released(folder: Path, method: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """A step of the released network by the losses of a method."""
    file = folder / "models" / "cifar" / "resnet.py"
    spec = spec_from_file_location("released", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SystemExit(f"{file} is not there: FOLDER must be a clone of github.com/d-li14/DHM")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    net: Any = module.resnet32(num_classes=CLASSES).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        answers = net(images)
        losses = [F.cross_entropy(answer, labels) for answer in answers]
        if method == "dhm":
            for student, teacher in itertools.permutations(answers, 2):
                target = F.softmax(teacher.detach(), dim=1)
                losses.append(F.kl_div(F.log_softmax(student, dim=1), target, reduction="batchmean"))
        optimizer.zero_grad()
        sum(losses[:1] if method == "baseline" else losses).backward()  # type: ignore[union-attr]
        optimizer.step()

    return step


def ours(method: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """A step of this project's training."""
    config = Config(arch="resnet32", method=method, image_size=32, batch_size=len(labels), precision="32-true")
    trainer = prepare(config, connect("cpu", config.precision))
    trainer.begin(0)
    images = images.to(memory_format=torch.channels_last)
    return lambda: trainer.step(0, 0, images, labels)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("folder", type=Path)
    command.add_argument("--rounds", type=int, default=10)
    command.add_argument("--batch-size", type=int, default=128)
    given = command.parse_args()
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]  # its zero padding asks for a GPU
    torch.manual_seed(0)
    images, labels = torch.randn(given.batch_size, 3, 32, 32), torch.randint(0, CLASSES, (given.batch_size,))
    ways: dict[str, Callable[[], object]] = {}
    for method in METHODS:
        ways[f"{method}, released"] = released(given.folder, method, images, labels)
        ways[f"{method}, here"] = ours(method, images, labels)
    seconds = interleaved(ways, given.rounds, time.process_time)
    print("| | released | here | here over released |\n|---|---:|---:|---|")
    for method in METHODS:
        theirs, here = (f"{method}, {whose}" for whose in ("released", "here"))
        print(f"| {method} | {np.median(seconds[theirs]):.2f} s | {np.median(seconds[here]):.2f} s | "
              f"{ratio(seconds, here, theirs)} |")  # fmt: skip


if __name__ == "__main__":
    main()
