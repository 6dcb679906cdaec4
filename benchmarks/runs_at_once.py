"""Steps a second of 1, 2, 4 and 8 trainings at once on one device, each a process of its own.

    python benchmarks/runs_at_once.py [--most 8] [--seconds 5] [--method dhm] [--arch resnet32] [--precision bf16-mixed]
        [--accelerator cuda] [--compile] [--alone FILE]

All processes prepare first; then the first of them train alone, the first two together and so on, for so many seconds
each. Started under NVIDIA's MPS (`nvidia-cuda-mps-control -d`), processes compute at the same time; without, by turns.
"""

import argparse
import multiprocessing
import time
from contextlib import nullcontext
from typing import Any

import torch
from filelock import FileLock
from step_time import Steps

from dhm import Config
from dhm.training.parallel import connect
from dhm.training.step import prepare

STEPS = 10
"""Steps after which a process looks at the clock."""


def train(number: int, counts: list[int], given: argparse.Namespace, barrier: Any, answers: Any) -> None:
    """One training; for each number of trainings at once that it belongs to, its steps a second and the bytes of the
    device that are taken by then, by all."""
    torch.set_num_threads(1)
    config = Config(arch=given.arch, method=given.method, image_size=32, seed=number, precision=given.precision)
    steps = Steps(prepare(config, connect(given.accelerator, config.precision), compile=given.compile), STEPS, False)
    steps.warm_up()
    for count in counts:
        barrier.wait()
        if number < count:
            start, done = time.perf_counter(), 0
            while (passed := time.perf_counter() - start) < given.seconds:
                steps()
                done += STEPS
            taken = 0
            if steps.device.type == "cuda":
                free, there = torch.cuda.mem_get_info()
                taken = there - free
            answers.put((count, done / passed, taken))
        barrier.wait()


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--most", type=int, default=8)
    command.add_argument("--seconds", type=float, default=5)
    command.add_argument("--method", default="dhm")
    command.add_argument("--arch", default="resnet32")
    command.add_argument("--precision", default="32-true")
    command.add_argument("--accelerator", default="cpu")
    command.add_argument("--compile", action="store_true")
    command.add_argument("--alone", metavar="FILE", help="a lock that is held while anything is measured")
    given = command.parse_args()
    counts = [2**power for power in range(given.most.bit_length())]
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(counts[-1] + 1), context.Queue()
    arguments = (counts, given, barrier, answers)
    workers = [context.Process(target=train, args=(number, *arguments), daemon=True) for number in range(counts[-1])]
    for worker in workers:
        worker.start()
    print(f"{given.arch}, {given.method}, {given.precision}, {'captured' if given.compile else 'eager'}, at once on "
          f"one device\n\n| runs | steps/s of all | ms a step of each | device memory, all {counts[-1]} processes |\n"
          "|---:|---:|---:|---:|", flush=True)  # fmt: skip
    while barrier.n_waiting < counts[-1]:
        if not all(worker.is_alive() for worker in workers):
            raise SystemExit("a process ended before it was measured")
        time.sleep(0.1)
    with FileLock(given.alone) if given.alone else nullcontext():
        for count in counts:
            barrier.wait()
            barrier.wait()
            rates, taken = zip(*(answers.get()[1:] for _ in range(count)), strict=True)
            each = 1000 * count / sum(rates)
            print(f"| {count} | {sum(rates):.1f} | {each:.2f} | {max(taken) / 2**20:.0f} MiB |", flush=True)
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
