"""What a training will cost, measured before anyone starts it."""

import itertools
import time
from dataclasses import dataclass
from typing import Any

import torch

from dhm.config import Config
from dhm.errors import InputError
from dhm.training.evaluation import batch_size
from dhm.training.parallel import connect
from dhm.training.step import Trainer, prepare
from dhm.training.threads import by_work
from dhm.training.timing import Stopwatch

WARM_UP = {"eager": 1, "captured": 3}
"""Steps not counted: a captured one is compiled in the first, recorded in the second and replayed from the third on."""


@dataclass(frozen=True)
class Estimate:
    """Cost of a run on this machine, from a few measured steps.

    Attributes:
        step: seconds of a training step.
        data: the share of it spent waiting for images.
        steps: training steps of the whole run.
        seconds: of the whole run, tests after each epoch included.
        memory: peak bytes on the accelerator, 0 on the CPU.
        threads: of the processor that a step took, where nothing else computes it.
    """

    step: float
    data: float
    steps: int
    seconds: float
    memory: int
    threads: int

    def __str__(self) -> str:
        place = f"{self.memory / 2**30:.1f} GiB" if self.memory else f"{self.threads} thread{'s' * (self.threads > 1)}"
        return (
            f"{1000 * self.step:.1f} ms a step ({100 * self.data:.0f}% data), "
            f"{self.steps:,} steps: {duration(self.seconds)}, {place}"
        )


def estimate(
    config: Config, steps: int = 10, accelerator: str = "auto", *, tests: bool = True, **machine: Any
) -> Estimate:
    """Measure `steps` training steps and test batches of a configuration; nothing is kept.

    Args:
        tests: whether the run's seconds are to hold its tests; else these are not measured.
        accelerator: as for `dhm.fit`.
        **machine: data_dir, download, accumulate, workers, compile, likewise.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    with torch.random.fork_rng(devices=[]):
        trainer = prepare(config, connect(accelerator, config.precision), **machine)
        train, device = trainer.data.train, trainer.fabric.device
        warm_up = WARM_UP["captured" if trainer.compiled else "eager"]
        with by_work(trainer) as threads:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            trainer.begin(config.frozen_epochs)
            epochs = (trainer.batches(epoch) for epoch in itertools.count())
            batches = enumerate(itertools.islice(itertools.chain.from_iterable(epochs), warm_up + steps))
            for step, (images, labels) in itertools.islice(batches, warm_up):
                trainer.step(0, step, images, labels)
            wait(device)
            watch = Stopwatch()
            for step, (images, labels) in watch.waiting("data", batches):
                trainer.step(0, step, images, labels)
            wait(device)
            watch.lap("train")
            memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
            test = _test_seconds(trainer, steps) if tests else 0.0
    total = config.epochs * train.steps(config.batch_size)
    seconds = total * watch.seconds["train"] / steps + config.epochs * test
    share = watch.seconds["data"] / watch.seconds["train"]
    return Estimate(watch.seconds["train"] / steps, share, total, seconds, memory, threads)


def _test_seconds(trainer: Trainer, steps: int) -> float:
    """Seconds of a test on all test images, from `steps` batches answered as `dhm.training.evaluation` does, and from
    a whole search where the images are tested by one."""
    net, images, device = trainer.net.eval(), trainer.data.test, trainer.fabric.device
    answer = net.all_logits if images.task is None else net.features
    passes = (images.test_batches(batch_size(images)) for _ in itertools.count())
    batches = itertools.chain.from_iterable(passes)
    seen = 0
    with torch.no_grad(), trainer.fabric.autocast():
        answer(next(batches)[0])  # not counted: a device prepares what it has not run before
        wait(device)
        start = time.perf_counter()
        for batch, _ in itertools.islice(batches, steps):
            answer(batch)
            seen += len(batch)
        wait(device)
        seconds = (time.perf_counter() - start) * len(images) / seen
        if images.task is not None:
            features = torch.randn(len(images), net.backbone.classifier.in_features).to(device)
            start = time.perf_counter()
            images.task.rank(features)
            seconds += time.perf_counter() - start
    return seconds


def wait(device: torch.device) -> None:
    """Until the accelerator has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def duration(seconds: float) -> str:
    """Seconds in words, e.g. "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days = hours / 24
    count, unit = (days, "days") if days < 730 else (days / 365.25, "years")
    return f"{count:.{1 if count < 10 else 0}f} {unit}"
