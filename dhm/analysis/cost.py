"""What full trainings would cost, from one that was measured."""

from collections.abc import Sequence

import pandas as pd

from dhm.analysis.variants import names, spoken
from dhm.config import Config
from dhm.flops import training_flops


def scaled(
    configs: Sequence[Config], measured: Config, seconds_per_image: float, images: int, image_size: int
) -> pd.DataFrame:
    """Hours of training of each network and method, from the seconds an image took in a measured one.

    Time is taken to grow with multiply-adds, which holds to within a factor of about two between these networks.

    Args:
        configs: the runs to cost; those that differ only in their seed share a row.
        measured, seconds_per_image: a configuration and what a training image cost in it here.
        images, image_size: of the data set the runs would train on.

    Returns:
        a row a network, a column a method or other variant: hours of one run; and the hours of all `configs`.
    """
    rate = seconds_per_image / training_flops(measured, image_size)
    hours: dict[tuple[str, str], float] = {}
    total: dict[str, float] = {}
    for config, name in zip(configs, names(configs), strict=True):
        key = (config.network, spoken(name))
        if key not in hours:
            hours[key] = rate * training_flops(config, image_size) * images * config.epochs / 3600
        total[config.network] = total.get(config.network, 0.0) + hours[key]
    table = pd.Series(hours).unstack(sort=False)
    table["all seeds and methods"] = pd.Series(total)
    return table.round(1)
