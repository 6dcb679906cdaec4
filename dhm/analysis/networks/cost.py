"""What the paper's full trainings would cost on a machine, from one training that was measured on it."""

import math
from collections.abc import Sequence

import pandas as pd

from dhm.analysis.variants import names, spoken
from dhm.config import Config
from dhm.data.reid import DATASETS, PUBLISHED
from dhm.flops import training_flops
from dhm.paper.presets import settings
from dhm.training.estimate import estimate

TRAINING_IMAGES = {
    "cifar100": 50_000, "imagenet": 1_281_167, **{name: there.images["train"] for name, there in PUBLISHED.items()}
}  # fmt: skip


def measure(
    arch: str, preset: str, accelerator: str = "auto", *, dataset: str = "", precision: str = Config.precision
) -> tuple[str, float]:
    """A few training steps of one of the paper's networks under DHM, on embedded images of the paper's size.

    Args:
        arch: e.g. "resnet32", whose step stands for all on CIFAR-100.
        preset: of the page; "quick" takes smaller batches, "smoke" the smallest and no more than 32 pixels.
        dataset: of re-identification, where its recipe is meant.

    Returns:
        What was measured, in words, and the pace, see `pace`.
    """
    recipe = Config.from_dict({**settings("paper", arch, "dhm", dataset), "method": "dhm", "precision": precision})
    images = "pedestrians" if recipe.dataset_name in DATASETS else "fashion-mnist-mini"
    size = recipe.image_size or 32
    standing = {"dataset": images, "image_size": size, "weights": "", "frozen_epochs": 0}
    if preset == "smoke":
        standing |= {"batch_size": 4, "image_size": min(size, 32)}
    elif preset == "quick":
        standing |= {"batch_size": 32 if size <= 32 else 8}
    measured = recipe.replace(**standing)
    steps = {"smoke": 1, "quick": 2}.get(preset, 5)
    step = estimate(measured, steps=steps, accelerator=accelerator, tests=False).step
    shape = _size(measured)
    pixels = f"{shape}x{shape}" if isinstance(shape, int) else f"{shape[0]}x{shape[1]}"
    told = f"{arch} under DHM: {1000 * step:.0f} ms a step of {measured.batch_size} images of {pixels} pixels"
    return told, pace(measured, step)


def pace(measured: Config, step: float) -> float:
    """Seconds a multiply-add took in a measured training.

    Args:
        measured: what was trained, its images of the size it names.
        step: seconds of a step of one batch.
    """
    return step / measured.batch_size / training_flops(measured, _size(measured))


def hours(config: Config, pace: float) -> float:
    """Hours of training of a run on the paper's data, its time taken to grow with multiply-adds.

    Args:
        pace: seconds a multiply-add, see `pace`.
    """
    work = training_flops(config, _size(config)) * TRAINING_IMAGES[config.dataset] * config.epochs
    return pace * work / 3600


def table(configs: Sequence[Config], pace: float) -> pd.DataFrame:
    """`hours` of one run, a row a network (on each data set, if there are several), a column a method or other variant,
    and of all `configs`, seeds included."""
    single: dict[tuple[str, str], float] = {}
    total: dict[str, float] = {}
    several = len({config.dataset for config in configs}) > 1
    for config, name in zip(configs, names(configs), strict=True):
        row = f"{config.network} on {config.dataset}" if several else config.network
        key = (row, spoken(name))
        if key not in single:
            single[key] = hours(config, pace)
        total[row] = total.get(row, 0.0) + single[key]
    table = pd.Series(single).unstack(sort=False)
    table["all seeds and methods"] = pd.Series(total)
    return table.map(_shown)


def _shown(hours: float) -> str:
    return "–" if math.isnan(hours) else f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}"


def _size(config: Config) -> int | tuple[int, int]:
    """Pixels of a side of a run's images; height and width of pedestrians."""
    size = config.image_size or 32
    return (size, size // 2) if config.dataset_name in DATASETS else size
