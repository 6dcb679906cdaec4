"""What fine-tuning with branches does to a trained network, and what keeps it from harm.

    OMP_NUM_THREADS=1 python benchmarks/fine_tuning.py FILE --data FOLDER_WITH_CIFAR100
    python benchmarks/fine_tuning.py FILE --table

The protocol, fixed before the first counted run. For each of seeds 0 to 4: 50 images a class of CIFAR-100's training
images, drawn by the seed; torchvision's ResNet-18 for 100 classes, trained on them at 32x32 for 20 epochs (SGD, one
cycle up to a rate of 0.05, momentum 0.9, weight decay 5e-4, batch 64, crops and flips). From this one network every way
goes on for 300 steps on the same batches: SGD at 0.01, momentum 0.9, weight decay 1e-4, batch 64, crops and flips.

    plain       no branches
    dhm, dsl    branches of `dhm.attach` as they are drawn
    warm-up     `dhm.warm_up_branches` for WARM_UP steps more beforehand, then dhm
    mimicking   the weight of all divergences grows from 0 to 1 in the first GROWTH steps; the rest is dsl
    influence   that, and what branches send back into the trunk grows alike, so that B0 begins exactly as plain
    both        warm-up, then influence

Figure: B0's accuracy on the 10,000 test images before the first step and after 3, 10, 30 and 300, in bfloat16 where the
processor computes in it. Criterion: the mean over the seeds of the difference to plain is above -1 point at every one
of these steps and at least 0 at the last. Of the ways that meet it the simplest in use is recommended, warm-up first.
All this was tried with seed 99, which is not counted: the drop is deepest about step 10, which is why it is looked at.
FILE gets a line for each seed and way, and a stopped run goes on where it was; trained networks are kept beside it.
"""

import argparse
import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import dhm
from dhm.analysis.statistics import Sample
from dhm.data import load
from dhm.data.images import Batch, Images
from dhm.randomness import generator
from dhm.training.arithmetic import native

WAYS = ("plain", "dhm", "dsl", "warm-up", "both", "mimicking", "influence")
LOOKED_AT = (0, 3, 10, 30, 300)
WARM_UP, GROWTH = 300, 200
CLASSES, PER_CLASS, BATCH, EPOCHS = 100, 50, 64, 20
BFLOAT16 = native("cpu") == "bf16-mixed"


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("file", type=Path)
    command.add_argument("--data")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    command.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    command.add_argument("--table", action="store_true")
    given = command.parse_args()
    if given.table:
        return table(read(given.file))
    nn.Conv2d._conv_forward = on_one_pixel
    both = load(dhm.Config(dataset="cifar100"), given.data)
    for seed in given.seeds:
        left = [way for way in given.ways if (seed, way) not in {(run["seed"], run["way"]) for run in read(given.file)}]
        if left:
            train = tenth(both.train, seed)
            trained = trained_network(given.file.with_name(f"{given.file.stem}-s{seed}.pt"), train, seed)
            first = accuracy(trained, both.test)
        for way in left:
            run = {"seed": seed, "way": way, "accuracy": {0: first, **fine_tune(way, trained, train, both.test, seed)}}
            with given.file.open("a") as file:
                print(json.dumps(run), file=file)
            print(run, flush=True)


def tenth(images: Images, seed: int) -> Images:
    """The images drawn by a seed."""
    of_class = ((images.labels == label).nonzero().flatten() for label in range(CLASSES))
    chosen = torch.cat([
        indices[torch.randperm(len(indices), generator=generator(seed, label))[:PER_CLASS]]
        for label, indices in enumerate(of_class)
    ])  # fmt: skip
    return Images(images.pixels[chosen], images.labels[chosen], images.mean, images.std)


def endless(images: Images, seed: int, part: int) -> Iterator[Batch]:
    """Augmented batches; the parts of a seed come in orders of their own."""
    for epoch in itertools.count(1000 * part):
        for pixels, labels in images.train_batches(BATCH, seed, epoch, augment="crop"):
            if len(labels) == BATCH:
                yield pixels.contiguous(), labels


def answer(net: nn.Module, images: torch.Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16):
        return net(images)


@torch.no_grad()
def accuracy(net: nn.Module, images: Images) -> float:
    """Percent of images that B0 gets right."""
    net.eval()
    right = [answer(net, pixels.contiguous()).argmax(1) == labels for pixels, labels in images.test_batches(500)]
    net.train()
    return round(100 * float(torch.cat(right).double().mean()), 2)


def trained_network(file: Path, train: Images, seed: int) -> nn.Module:
    """Read from its file, or trained and written to it."""
    torch.manual_seed(seed)
    net = torchvision.models.resnet18(num_classes=CLASSES)
    if file.exists():
        net.load_state_dict(torch.load(file, weights_only=True))
        return net
    steps = EPOCHS * (len(train) // BATCH)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=steps)
    for images, labels in itertools.islice(endless(train, seed, part=0), steps):
        optimizer.zero_grad()
        F.cross_entropy(answer(net, images).float(), labels).backward()
        optimizer.step()
        schedule.step()
    torch.save(net.state_dict(), file)
    return net


def fine_tune(way: str, trained: nn.Module, train: Images, test: Images, seed: int) -> dict[int, float]:
    """Accuracy after the steps that are looked at."""
    net: Any = copy.deepcopy(trained)
    if way != "plain":
        net = dhm.attach(net, image_size=32, seed=seed)
    if way in ("warm-up", "both"):
        with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16):
            dhm.warm_up_branches(net, endless(train, seed, part=2), WARM_UP)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    loss, found = dhm.DHMLoss("dsl" if way == "dsl" else "dhm", return_terms=False), {}
    net.train()
    for step, (images, labels) in enumerate(itertools.islice(endless(train, seed, part=1), max(LOOKED_AT))):
        if way in ("mimicking", "influence", "both"):
            loss.mimic_scale = min(1.0, step / GROWTH)
        if way in ("influence", "both"):
            net.influence = loss.mimic_scale
        logits = answer(net, images)
        total = F.cross_entropy(logits.float(), labels) if way == "plain" else loss(logits, labels)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if step + 1 in LOOKED_AT:
            found[step + 1] = accuracy(net, test)
    return found


def on_one_pixel(self: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A 3x3 convolution, which at the end of these networks sees maps of a single pixel.

    There it is a product with the middle of its weights, for which torch takes three times as long.
    """
    if x.shape[2:] == (1, 1) and self.kernel_size == (3, 3) and self.padding == (1, 1):
        return F.linear(x.flatten(1), weight[:, :, 1, 1], bias)[:, :, None, None]
    return _convolution(self, x, weight, bias)


_convolution = nn.Conv2d._conv_forward


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(runs: list[dict[str, Any]]) -> None:
    """Mean accuracy over the seeds, and the mean difference to plain of the same seed with its 95 % interval."""
    found = {(run["seed"], run["way"]): run["accuracy"] for run in runs}
    print("| | " + " | ".join(f"step {point}" for point in LOOKED_AT) + " |")
    print("|---" * (len(LOOKED_AT) + 1) + "|")
    for way in WAYS:
        seeds = [seed for seed in sorted({seed for seed, _ in found}) if {(seed, way), (seed, "plain")} <= found.keys()]
        cells = []
        for point in map(str, LOOKED_AT):
            mean = Sample.of([found[seed, way][point] for seed in seeds]).mean
            gain = Sample.of([found[seed, way][point] - found[seed, "plain"][point] for seed in seeds])
            low, high = gain.interval()
            cells.append(f"{mean:.2f}" + (f" ({gain.mean:+.2f}: {low:+.2f} to {high:+.2f})" if way != "plain" else ""))
        print(f"| {way} ({len(seeds)}) | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
