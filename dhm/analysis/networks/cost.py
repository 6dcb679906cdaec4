"""What the paper's full trainings would cost on a machine, from one training that was measured on it."""

import math
from collections.abc import Sequence

import pandas as pd

from dhm.analysis.variants import names, spoken
from dhm.config import Config
from dhm.data.reid import DATASETS, PUBLISHED
from dhm.flops import training_flops

TRAINING_IMAGES = {
    "cifar100": 50_000, "imagenet": 1_281_167, **{name: there.images["train"] for name, there in PUBLISHED.items()}
}  # fmt: skip


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
    """`hours` of one run, a row a network, a column a method or other variant, and of all `configs`, seeds included."""
    single: dict[tuple[str, str], float] = {}
    total: dict[str, float] = {}
    for config, name in zip(configs, names(configs), strict=True):
        key = (config.network, spoken(name))
        if key not in single:
            single[key] = hours(config, pace)
        total[config.network] = total.get(config.network, 0.0) + single[key]
    table = pd.Series(single).unstack(sort=False)
    table["all seeds and methods"] = pd.Series(total)
    return table.map(_shown)


def _shown(hours: float) -> str:
    return "–" if math.isnan(hours) else f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}"


def _size(config: Config) -> int | tuple[int, int]:
    """Pixels of a side of a run's images; height and width of pedestrians."""
    size = config.image_size or 32
    return (size, size // 2) if config.dataset_name in DATASETS else size
