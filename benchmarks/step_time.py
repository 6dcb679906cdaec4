"""Seconds of a training step for baseline, DSL and DHM, interleaved, and the price of mimicking over deep supervision.

    python benchmarks/step_time.py [--arch resnet32] [--method baseline dsl dhm] [--rounds 30] [--steps 1] [--threads 2]
        [--batch-size 128] [--image-size 32] [--accelerator cuda] [--precision bf16-mixed] [--tf32] [--contiguous]
        [--compile] [--alone FILE]

Each round measures every method, in random order, so that a busy machine slows all alike; the ratio DHM / DSL is taken
within a round and its median bootstrapped. With `--compile` a round has a captured step of each method too, for the
ratios eager / captured; beside its time stands what compiling it took. A GPU is waited for after `--steps` steps, not
after each, as in a training. Its memory is what a step allocates at most on top of weights, momenta and images; of a
captured step, what stays reserved for it, momenta included.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from filelock import FileLock
from ratios import interleaved, ratio

from dhm import Config
from dhm.config import METHODS
from dhm.data.images import Batch
from dhm.training.estimate import wait
from dhm.training.parallel import connect
from dhm.training.step import Trainer, prepare
from dhm.training.timing import Stopwatch

CAPTURED = " captured"
WARM_UP = 4
"""Steps of a captured way before a clock runs: one that compiles, one that warms up, one that records the graphs."""


class Steps:
    """So many steps of a training, one after the other; the device is waited for at their end."""

    def __init__(self, trainer: Trainer, count: int, contiguous: bool) -> None:
        self.trainer, self.count, self.contiguous = trainer, count, contiguous
        self.watch = Stopwatch()
        self.device = trainer.fabric.device
        if contiguous:
            trainer.net.to(memory_format=torch.contiguous_format)
        trainer.begin(0)
        self.batches = self.watch.waiting("data", endless(trainer))

    def __call__(self) -> None:
        for images, labels in itertools.islice(self.batches, self.count):
            self.trainer.step(0, 0, images.contiguous() if self.contiguous else images, labels)
        wait(self.device)

    def warm_up(self) -> tuple[float, int]:
        """Seconds of the first step, which compiles a captured one; bytes of a GPU that steps take."""
        count, self.count = self.count, 1
        cuda, captured = self.device.type == "cuda", self.trainer.compiled
        reserved = self.reserved() if cuda else 0
        start = time.perf_counter()
        self()
        first = time.perf_counter() - start
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        for _ in range(WARM_UP):
            self()
        self.count = count
        if not cuda:
            return first, 0
        return first, self.reserved() - reserved if captured else torch.cuda.max_memory_allocated() - held

    @staticmethod
    def reserved() -> int:
        """Bytes of a GPU that cannot be given back."""
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()


def endless(trainer: Trainer) -> Iterator[Batch]:
    """Whole batches epoch after epoch."""
    for epoch in itertools.count():
        yield from (batch for batch in trainer.batches(epoch) if len(batch[1]) == trainer.config.batch_size)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--arch", default="resnet32")
    options.add_argument("--method", nargs="+", default=list(METHODS), choices=METHODS)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--steps", type=int, default=1, help="steps of a method in a round")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--image-size", type=int, default=32)
    options.add_argument("--accelerator", default="cpu")
    options.add_argument("--precision", default="32-true")
    options.add_argument("--tf32", action="store_true", help="float32 by TensorFloat-32, which runs do not use")
    options.add_argument("--contiguous", action="store_true", help="without the channels-last layout that runs have")
    options.add_argument("--compile", action="store_true", help="captured steps too")
    options.add_argument(
        "--alone", metavar="FILE",
        help="a lock: several of these commands prepare at once and are measured one after the other",
    )  # fmt: skip
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    ways: dict[str, Steps] = {}
    for method, captured in itertools.product(given.method, (False, True) if given.compile else (False,)):
        config = Config(
            arch=given.arch, method=method, image_size=given.image_size, batch_size=given.batch_size, epochs=1000,
            precision=given.precision,
        )  # fmt: skip
        trainer = prepare(config, connect(given.accelerator, config.precision), compile=captured)
        if given.tf32:
            torch.backends.cudnn.allow_tf32 = True
            torch.set_float32_matmul_precision("high")
        ways[method + CAPTURED * captured] = Steps(trainer, given.steps, given.contiguous)
    prepared = {name: way.warm_up() for name, way in ways.items()}  # preparing one forgets what others have compiled
    with FileLock(given.alone) if given.alone else nullcontext():
        for way in ways.values():
            way.watch.seconds.clear()
        seconds = interleaved(ways, given.rounds, warm_up=0)
    layout = "contiguous" if given.contiguous else "channels last"
    print(f"{given.arch}, batch {given.batch_size}, {given.image_size} x {given.image_size}, {given.threads} threads, "
          f"{given.precision}{', TF32' * given.tf32}, {layout}, {given.rounds} rounds of {given.steps}")  # fmt: skip
    for name, way in ways.items():
        step, share = np.median(seconds[name]) / given.steps, way.watch.seconds["data"] / np.sum(seconds[name])
        first, memory = prepared[name]
        print(f"  {name:<17} median {1000 * step:7.2f} ms a step, {given.batch_size / step:7.0f} images/s, "
              f"data {100 * share:.1f}%" + f", {memory / 2**20:.0f} MiB" * (memory > 0)
              + f", the first {first:.0f} s" * way.trainer.compiled)  # fmt: skip
    pairs = [("dhm", "dsl"), ("dsl", "baseline")]
    pairs += [(f"{a}{CAPTURED}", f"{b}{CAPTURED}") for a, b in pairs]
    for first, second in [*pairs, *((method, method + CAPTURED) for method in given.method)]:
        if {first, second} <= ways.keys():
            print(f"  {first} / {second}: {ratio(seconds, first, second)}")


if __name__ == "__main__":
    main()
