"""What it would cost to decide a claim on the reader's machine."""

from collections.abc import Iterable

from dhm.analysis.claims import Claim, networks
from dhm.analysis.shelf import TABLES
from dhm.analysis.variants import variant
from dhm.analysis.wrong_labels import network_at
from dhm.config import Config
from dhm.flops import training_flops
from dhm.paper import PAPER_SEEDS
from dhm.recipes import TABLE3_SETS

TRAINING_IMAGES = {"cifar100": 50_000, "imagenet": 1_281_167, "market1501": 12_936, "dukemtmc-reid": 16_522}


def runs_of(claim: Claim) -> list[Config]:
    """The runs by the paper's recipe that decide a claim, five seeds of both sides; none if no training does."""
    if not claim.tables or claim.kind == "same":
        return []
    wanted = {name.partition(" at ")[0] for name in (claim.first, claim.second)}
    chosen = set(networks(claim) if claim.kind in ("row", "every") else claim.networks)
    return [
        config
        for config in TABLES[claim.tables[0]]("paper", seeds=range(PAPER_SEEDS))
        if variant(config.to_dict()) in wanted and chosen & _rows(config)
    ]


def _rows(config: Config) -> set[str]:
    """What a run's network is called in the tables."""
    return {network_at(config.network, config.label_noise), f"{config.network} on {config.dataset}"}


def hours(configs: Iterable[Config], seconds_per_multiply_add: float) -> float:
    """Hours of training of some runs, their time taken to grow with multiply-adds (see `cost.scaled`)."""
    work = sum(
        training_flops(config, _size(config)) * TRAINING_IMAGES[config.dataset] * config.epochs for config in configs
    )
    return seconds_per_multiply_add * work / 3600


def _size(config: Config) -> int | tuple[int, int]:
    """Pixels of a side of a run's images; height and width of pedestrians."""
    size = config.image_size or 32
    return (size, size // 2) if config.dataset in TABLE3_SETS else size
