"""Images a second of the streamed loader against what a training step needs.

    python benchmarks/loader.py --dataset /data/imagenet --image-size 224 --arch resnet18 resnet50

Read: with W workers the loader gives so many images a second; a step of the network takes so many. Where the loader's
figure is smaller, the device waits: take more workers, smaller files, or a faster disk.
"""

import argparse
import itertools
import time

import torch

from dhm.config import METHODS, Config
from dhm.data import Streamed, load
from dhm.paper import presets
from dhm.training.estimate import estimate


def loader_rate(images: Streamed, config: Config, seconds: float) -> float:
    """Images a second of the training batches, measured for about so long after the first batch."""
    epochs = (images.train_batches(config.batch_size, 0, epoch, augment=config.augment) for epoch in itertools.count())
    batches = itertools.chain.from_iterable(epochs)
    next(batches)
    start, count = time.perf_counter(), 0
    for _, labels in batches:
        count += len(labels)
        if time.perf_counter() - start > seconds:
            break
    return count / (time.perf_counter() - start)


def main() -> None:
    """Print both tables."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--dataset", default="imagenet", help="a folder in the ImageNet layout")
    command.add_argument("--image-size", type=int, default=224)
    command.add_argument("--batch-size", type=int, default=256)
    command.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2, 4, 8])
    command.add_argument("--arch", nargs="*", default=["resnet18"])
    command.add_argument("--method", nargs="*", default=list(METHODS))
    command.add_argument("--precision", default="32-true")
    command.add_argument("--accelerator", default="auto")
    command.add_argument("--seconds", type=float, default=20.0, help="of each measurement of the loader")
    command.add_argument("--steps", type=int, default=10, help="of each measurement of the network")
    given = command.parse_args()
    change = {"dataset": given.dataset, "image_size": given.image_size, "batch_size": given.batch_size,
              "precision": given.precision}  # fmt: skip

    print(f"{'loader':<24}{'workers':>8}{'images/s':>10}")
    for augment in ("scale", "fixed_scale"):
        config = Config.from_dict({**presets.settings("paper", "resnet18"), **change, "augment": augment})
        for workers in given.workers:
            train = load(config, workers=workers).train
            assert isinstance(train, Streamed)
            print(f"{augment:<24}{workers:>8}{loader_rate(train, config, given.seconds):>10.0f}", flush=True)

    print(f"\n{'step':<24}{'device':>8}{'images/s':>10}{'ms/step':>10}")
    for arch in given.arch:
        for method in given.method:
            config = Config.from_dict({**presets.settings("paper", arch, method), **change, "method": method})
            cost = estimate(config, given.steps, given.accelerator)
            step = cost.step * (1 - cost.data)  # without the wait for images
            device = "cuda" if torch.cuda.is_available() and given.accelerator != "cpu" else "cpu"
            print(
                f"{arch + ' ' + method:<24}{device:>8}{config.batch_size / step:>10.0f}{1000 * step:>10.0f}", flush=True
            )


if __name__ == "__main__":
    main()
