"""The claims as the tables of one page, and the trainings that decide them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import pandas as pd
from pandas.io.formats.style import Styler

from dhm.analysis.evidence.claims import Claim, Finding, networks
from dhm.analysis.evidence.proofs import PROOFS
from dhm.analysis.evidence.results import published
from dhm.analysis.evidence.shelf import TABLES, Shelf
from dhm.analysis.evidence.wrong_labels import network_at
from dhm.analysis.networks import cost
from dhm.analysis.statistics import COMPARISONS, LEVEL, compared, label, power, seeds_needed
from dhm.analysis.variants import variant
from dhm.config import Config
from dhm.paper.numbers import PAPER_SEEDS
from dhm.paper.recipes import TABLE3_SETS
from dhm.training.estimate import duration

WORDS: Mapping[str, str] = {
    "reproduced": "#2e7d32", "supported elsewhere": "#2e7d32", "holds": "#2e7d32", "the same": "#2e7d32",
    "contradicted": "#c62828", "not supported elsewhere": "#c62828", "does not hold": "#c62828",
    "different": "#c62828", "misprint": "#6a6a6a", "not run": "#8a8a8a",
}  # fmt: skip
"""Outcomes by the beginning of a verdict, and their colours; every other verdict is open."""
OPEN, OPEN_COLOUR = "open", "#9a6700"
ARCHITECTURES = ("table1_cifar100", "table2_imagenet", "table3_reid")
"""Notebooks that take networks by name."""
FETCH = "-p download true"
FIVE = f'-p seeds "{list(range(PAPER_SEEDS))}"'
ASKED: Mapping[str, str] = {
    **dict.fromkeys(("table1_cifar100", "appendix_d_bernoulli", "appendix_e_corrupt_labels"), FETCH),
    **dict.fromkeys(("appendix_f_dropout", "appendix_g_comparators"), FETCH),
    **dict.fromkeys(("table2_imagenet", "direction_ablation", "table4_branches", "table5_branch_gain"), FIVE),
    "table3_reid": f"{FIVE} -p datasets \"{list(TABLE3_SETS)}\" {FETCH}",
}  # fmt: skip
"""What a notebook must be asked for to decide its claims: seeds where the paper has single runs, data to fetch."""
TRAINED_BY = {"figure2_training_curves": "table2_imagenet"}
"""Notebooks that draw a single seed of the runs of another one."""


def outcome(verdict: str) -> str:
    """The class of a verdict: a word of `WORDS`, or "open" for what is inconclusive, incomplete or a single run's."""
    return next((word for word in WORDS if verdict.startswith(word)), OPEN)


def summary(findings: Iterable[Finding]) -> pd.DataFrame:
    """How many claims came out how, a row for each section, appendix and table of the paper."""
    rows = [
        {"place": finding.claim.place.partition(" (")[0], "outcome": outcome(finding.verdict)} for finding in findings
    ]
    table = pd.DataFrame(rows).groupby(["place", "outcome"], sort=False).size().unstack(fill_value=0)
    table = table[[word for word in (*[*WORDS][:-1], OPEN, "not run") if word in table]]
    table.insert(0, "claims", table.sum(axis=1))
    table.loc["all"] = table.sum()
    return table.rename_axis(columns=None)


def opening(findings: Sequence[Finding], shelf: Shelf) -> str:
    """How many claims there are, how many have been looked at, and by how many runs."""
    left = sum(outcome(finding.verdict) == "not run" for finding in findings)
    own = {folder for runs in shelf.of_the_paper.values() for folder in runs["folder"]}  # several tables share some
    return (
        f"**{len(findings)} claims, of which {len(findings) - left} have been looked at.** On record: "
        f"{len(shelf.measured)} runs of the protocol, {len(own)} by the paper's recipe on the paper's data."
    )


def by_place(findings: Sequence[Finding]) -> tuple[list[Finding], dict[str, list[Finding]]]:
    """The claims of sentences, and those of the rows of Tables 1 to 3 by table."""
    places = ("Table 1", "Table 2", "Table 3")
    tables = {place: [finding for finding in findings if finding.claim.place == place] for place in places}
    return [finding for finding in findings if finding.claim.place not in places], tables


def page(findings: Sequence[Finding], pace: float) -> Styler:
    """Claims with everything that is known of them, verdicts coloured.

    Args:
        pace: of this machine, see `cost.pace`, for what deciding a claim would cost here.
    """
    rows = [
        {
            "claim": finding.claim.claim,
            "place": finding.claim.place,
            "printed": finding.printed,
            "its own numbers": finding.carried,
            "ours": finding.ours,
            "verdict": finding.verdict,
            "cost here": price(finding.claim, pace),
            "notebook": finding.claim.notebook,
        }
        for finding in findings
    ]
    table = pd.DataFrame(rows)
    look = [
        {"selector": "th, td", "props": "text-align: left; vertical-align: top; padding: 4px 8px; max-width: 22em;"},
        {"selector": "", "props": "border-collapse: collapse; font-size: 90%;"},
    ]
    return (
        table.style.hide(axis="index").set_table_styles(look)  # type: ignore[arg-type]
        .map(lambda word: f"color: {WORDS.get(outcome(word), OPEN_COLOUR)}; font-weight: 600", subset=["verdict"])
        .set_uuid(findings[0].claim.id if findings else "empty")
    )  # fmt: skip


def runs_of(claim: Claim) -> list[Config]:
    """The runs by the paper's recipe that decide a claim, five seeds of both sides; none if no training does."""
    if not claim.tables or claim.kind == "same":
        return []
    wanted = {name.partition(" at ")[0] for name in (claim.first, claim.second)}
    chosen = networks(claim) if claim.kind in ("row", "every") else claim.networks
    return [
        run
        for run, name in _runs_behind(claim.tables[0])
        if name in wanted
        and (network_at(run.network, run.label_noise) in chosen or f"{run.network} on {run.dataset}" in chosen)
    ]


@cache
def _runs_behind(table: str) -> tuple[tuple[Config, str], ...]:
    """The runs of a table by the paper's recipe, each with its variant."""
    return tuple((run, variant(run)) for run in TABLES[table]("paper", seeds=range(PAPER_SEEDS)))


def price(claim: Claim, pace: float) -> str:
    """Time that the runs which decide a claim take on a machine of this pace, see `cost.pace`."""
    runs = runs_of(claim)
    if not runs:
        return "seconds" if claim.kind == "same" or claim.kind in PROOFS else "–"
    return f"{duration(3600 * sum(cost.hours(run, pace) for run in runs))}, {len(runs)} runs"


def command(claim: Claim) -> str:
    """The command that trains what a claim needs, as far as it is missing, and shows the outcome."""
    name = TRAINED_BY.get(claim.notebook, claim.notebook)
    plain = list(dict.fromkeys(network.partition(" on ")[0] for network in claim.networks))
    chosen = f'-p architectures "{plain}"' if plain and name in ARCHITECTURES else ""
    return " ".join(filter(None, [f"python -m dhm notebook {name} -p preset paper", chosen, ASKED.get(name, "")]))


def commands(findings: Iterable[Finding]) -> list[str]:
    """The commands behind all claims that a training decides, each once."""
    return list(dict.fromkeys(command(finding.claim) for finding in findings if runs_of(finding.claim)))


def powers() -> pd.DataFrame:
    """What the runs of Table 1 can tell, five of each method, if they spread as the paper's.

    Each comparison at the level a single true gain would be left by Holm over the table; pooled deviations.
    """
    source = published("table1")
    rows = compared(source, COMPARISONS)
    level = LEVEL / len(rows)
    shown = {}
    for network, first, second in rows:
        a, b = source[network, first], source[network, second]
        gain, std = a.mean - b.mean, ((a.std**2 + b.std**2) / 2) ** 0.5
        shown[label(network, first, second)] = {
            "the paper's gain": f"{gain:+.2f}",
            "spread of runs": f"{std:.2f}",
            f"chance that {PAPER_SEEDS} seeds show it": f"{power(gain, std, PAPER_SEEDS, level):.0%}",
            "seeds for 80 %": seeds_needed(gain, std, level) or "over 1,000",
        }
    return pd.DataFrame.from_dict(shown, orient="index").rename_axis("comparison")
