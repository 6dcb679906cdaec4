"""Which trainings decide a claim."""

from dhm.analysis.evidence.claims import Claim, networks
from dhm.analysis.evidence.shelf import TABLES
from dhm.analysis.evidence.wrong_labels import network_at
from dhm.analysis.variants import variant
from dhm.config import Config
from dhm.paper.numbers import PAPER_SEEDS


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
