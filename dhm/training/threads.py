"""How many of the processor's threads a training takes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dhm.flops import training_flops
from dhm.training.step import Trainer

WORK = 2.5e9
"""Multiply-adds of a step that are worth a thread. Threads wait for each other after every layer: with less to do, that
takes longer than the layer, and where other programs want the cores many times longer (docs/measurements.md)."""


@contextmanager
def by_work(trainer: Trainer) -> Iterator[int]:
    """As many threads as a step has work for, but no more than there are; $OMP_NUM_THREADS overrules it.

    The same on a machine each time, since weights differ in their last bits with the number of threads.
    """
    before = torch.get_num_threads()
    config, train = trainer.config, trainer.data.train
    if trainer.fabric.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        shard = config.batch_size / trainer.fabric.world_size / trainer.accumulate
        torch.set_num_threads(min(before, max(1, int(training_flops(config, train.size) * shard / WORK))))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
