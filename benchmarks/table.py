"""Every ratio this project states about its speed, measured on this machine and written to docs/measurements.md.

    python benchmarks/table.py [--rounds 10] [--print]

Each row is measured in one process, its ways by turns (`ratios`); what is measured, and of what, is told in the row.
With 5 rounds two and a half minutes on two idle cores. The other files here measure the same in more detail.
"""

import argparse
import itertools
import os
import re
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import convolution_floor
import loss_heads
import threads
import torch
import verification
from PIL import Image
from ratios import Ratio, interleaved, ratio

from dhm import Config, paths
from dhm.data import Streamed, load
from dhm.flops import training_flops
from dhm.records.environment import describe
from dhm.records.record import RunRecord
from dhm.training.parallel import connect
from dhm.training.step import Trainer, prepare

PAGE = paths.root() / "docs" / "measurements.md"
TABLE = re.compile(r"(<!-- python benchmarks/table.py -->\n).*?(<!-- end -->)", re.DOTALL)
"""Where the table stands on the page."""
RESNET32 = Config(arch="resnet32", image_size=32, precision="32-true")
Row = tuple[str, Ratio]


def ready(config: Config, **options: bool) -> tuple[Trainer, tuple[torch.Tensor, torch.Tensor]]:
    """A training that is prepared on the CPU, and a batch of it."""
    trainer = prepare(config, connect("cpu", config.precision), **options)
    trainer.begin(0)
    return trainer, next(trainer.batches(0))


def mimicking(rounds: int) -> Iterator[Row]:
    """What branches and mimicking cost a step, as multiples and by their multiply-adds."""
    configs = {method: RESNET32.replace(method=method) for method in ("baseline", "dsl", "dhm")}
    made = {method: ready(config) for method, config in configs.items()}
    ways = {method: (lambda t=trainer, b=batch: t.step(0, 0, *b)) for method, (trainer, batch) in made.items()}
    seconds = interleaved(ways, rounds, time.process_time)
    work = training_flops(configs["baseline"]) / training_flops(configs["dsl"])
    yield "DSL's step over the baseline's, ResNet-32", ratio(seconds, "dsl", "baseline")
    yield "the same for each multiply-add", ratio(seconds, "dsl", "baseline", work)
    yield "DHM's step over DSL's", ratio(seconds, "dhm", "dsl")


def floor(rounds: int) -> Iterator[Row]:
    """How much of a step is convolutions."""
    seconds = interleaved(convolution_floor.ways(RESNET32.replace(method="dhm")), rounds, time.process_time)
    yield "DHM's step over its convolutions alone", ratio(seconds, "a step", "its convolutions")


def loss(rounds: int) -> Iterator[Row]:
    """The loss by itself, over the number of classifiers."""
    for count, dsl, dhm in loss_heads.measure(rounds=10 * rounds):
        yield f"DSL's loss of {count} classifiers over the cross-entropy of one", dsl
        yield f"DHM's loss of {count} classifiers over the same", dhm


def threading(rounds: int) -> Iterator[Row]:
    """One thread against one for every core."""
    for name in ("wide ResNet of the quick preset", "the same on 28x28", "ResNet-32 on 32x32"):
        for others in (0, 3):
            where = f"beside {others} busy processes" if others else "with nothing beside it"
            _, found = threads.measure(threads.NETWORKS[name], others, rounds)
            yield f"one thread over {os.cpu_count()}, {name}, {where}", found


def reading(rounds: int) -> Iterator[Row]:
    """Streamed images against what a step needs."""
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder))
        config = Config(
            dataset=folder, arch="resnet18", method="dhm", image_size=224, augment="scale", batch_size=8, epochs=1000
        )
        trainer, batch = ready(config)
        train = load(config, workers=0).train
        assert isinstance(train, Streamed)
        epochs = (train.train_batches(8, 0, epoch, augment=config.augment) for epoch in itertools.count())
        images = itertools.chain.from_iterable(epochs)
        ways = {"read": lambda: next(images), "step": lambda: trainer.step(0, 0, *batch)}
        seconds = interleaved(ways, rounds, time.process_time)
    yield "reading JPEGs of 500x375 over DHM's step on them, ResNet-18 at 224x224", ratio(seconds, "read", "step")


def write_photographs(folder: Path) -> None:
    """Pictures in class folders, of the size ImageNet's have: the embedded ones, enlarged."""
    pixels = load(Config()).train.spread(16).pixels.permute(0, 2, 3, 1).numpy()
    for number, (part, name) in enumerate(itertools.product(("train", "val"), ("a", "b"))):
        (folder / part / name).mkdir(parents=True)
        for index in range(4):
            picture = Image.fromarray(pixels[4 * number + index]).resize((500, 375), Image.Resampling.BICUBIC)
            picture.save(folder / part / name / f"{index}.jpg")


def capturing(rounds: int) -> Iterator[Row]:
    """An eager step against a captured one."""
    small = Config(options={"depth": 8}, method="dhm", image_size=32, precision="32-true")
    made = {way: ready(small, compile=way == "captured") for way in ("eager", "captured")}
    ways = {way: (lambda t=trainer, b=batch: t.step(0, 0, *b)) for way, (trainer, batch) in made.items()}
    seconds = interleaved(ways, rounds, time.process_time, warm_up=3)
    yield "an eager step over a captured one, DHM of ResNet-8", ratio(seconds, "eager", "captured")


def checking(rounds: int) -> Iterator[Row]:
    """What checksums add."""
    config = RESNET32.replace(batch_size=8)
    with tempfile.TemporaryDirectory() as folder:
        record, state = RunRecord.of(config, folder), verification.trained(config)
        record.create()
        written = interleaved(verification.written(record, state), 3 * rounds, time.process_time)
        yield "a checkpoint of ResNet-32 written with checksums over without", ratio(written, "with", "without")
        loaded = interleaved(verification.loaded(record), 3 * rounds, time.process_time)
        yield "the same loaded", ratio(loaded, "with", "without")
        trainer, batch = ready(RESNET32.replace(method="dhm"))
        ways = {"write": lambda: record.write_checkpoint("last", state), "step": lambda: trainer.step(0, 0, *batch)}
        yield "a checkpoint over a step", ratio(interleaved(ways, rounds, time.process_time), "write", "step")


PARTS = (mimicking, floor, loss, threading, reading, capturing, checking)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--rounds", type=int, default=10)
    command.add_argument("--print", action="store_true", help="leave the page as it is")
    given = command.parse_args()
    torch.set_num_threads(1)
    machine = describe(torch.device("cpu"))
    lines = [
        f"{machine['device']} ({machine['instructions']}), {machine['cores']} cores, "
        f"torch {machine['packages']['torch']}, {datetime.now(UTC):%Y-%m-%d}; load when it began "
        f"{os.getloadavg()[0]:.1f}. One thread and seconds of the processor, but in the rows on threads seconds of the "
        "clock. Batches of 128 where none is named.",
        "",
        "| what | median ratio (95 % bootstrap interval) |",
        "|---|---|",
    ]
    print(*lines, sep="\n", flush=True)
    for part in PARTS:
        for title, found in part(given.rounds):
            lines.append(f"| {title} | {found} |")
            print(lines[-1], flush=True)
    if not given.print:
        page, table = PAGE.read_text(), "\n".join(lines)
        PAGE.write_text(TABLE.sub(lambda found: f"{found[1]}{table}\n{found[2]}", page))


if __name__ == "__main__":
    main()
