"""A training step beside its convolutions alone, forward and backward: what a faster program could save at most.

python benchmarks/convolution_floor.py [--arch resnet32] [--batch-size 128] [--rounds 10]
"""

import argparse
import time
from collections.abc import Callable

import torch
from ratios import interleaved, ratio
from torch import nn
from torch.nn import functional as F

from dhm import Config
from dhm.training.parallel import connect
from dhm.training.step import Trainer, prepare


def ways(config: Config) -> dict[str, Callable[[], object]]:
    """A step, and every convolution of it by itself on inputs of the same shape and layout."""
    trainer = prepare(config, connect("cpu", config.precision))
    trainer.begin(0)
    images, labels = next(trainer.batches(0))
    calls = convolutions(trainer, images)

    def alone() -> None:
        for convolution, x in calls:
            wanted = [convolution.weight] if x is images else [x.requires_grad_(), convolution.weight]
            y = F.conv2d(x, convolution.weight, None, convolution.stride, convolution.padding, 1, convolution.groups)
            torch.autograd.grad(y, wanted, torch.ones_like(y))

    return {"a step": lambda: trainer.step(0, 0, images, labels), "its convolutions": alone}


def convolutions(trainer: Trainer, images: torch.Tensor) -> list[tuple[nn.Conv2d, torch.Tensor]]:
    """Every convolution as it is called in a training pass, with its input."""
    calls: list[tuple[nn.Conv2d, torch.Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        calls.append((module, inputs[0].detach() if inputs[0] is not images else images))  # type: ignore[arg-type]

    hooks = [m.register_forward_pre_hook(keep) for m in trainer.net.modules() if isinstance(m, nn.Conv2d)]
    trainer.net(images)
    for hook in hooks:
        hook.remove()
    return calls


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--arch", default="resnet32")
    command.add_argument("--batch-size", type=int, default=128)
    command.add_argument("--rounds", type=int, default=10)
    given = command.parse_args()
    config = Config(arch=given.arch, method="dhm", image_size=32, batch_size=given.batch_size, precision="32-true")
    seconds = interleaved(ways(config), given.rounds, time.process_time)
    print(f"{given.arch}, batch {given.batch_size}, {torch.get_num_threads()} threads: a step takes "
          f"{ratio(seconds, 'a step', 'its convolutions')} times its convolutions")  # fmt: skip


if __name__ == "__main__":
    main()
