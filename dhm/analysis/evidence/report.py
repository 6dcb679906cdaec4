"""The claims as the tables of one page."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from pandas.io.formats.style import Styler

from dhm.analysis.evidence.claims import Claim, Finding
from dhm.analysis.evidence.deciding import runs_of
from dhm.analysis.evidence.proofs import PROOFS
from dhm.analysis.evidence.results import published
from dhm.analysis.evidence.shelf import Shelf
from dhm.analysis.networks import cost
from dhm.analysis.statistics import COMPARISONS, LEVEL, label, power, seeds_needed
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
    order = [word for word in (*WORDS, OPEN) if word in table and word != "not run"]
    table = table[[*order, *(["not run"] if "not run" in table else [])]]
    table.insert(0, "claims", table.sum(axis=1))
    table.loc["all"] = table.sum()
    return table.rename_axis(columns=None)


def opening(findings: Sequence[Finding], shelf: Shelf) -> str:
    """How many claims there are, how many have been looked at, and by how many runs."""
    left = sum(outcome(finding.verdict) == "not run" for finding in findings)
    own = sum(len(runs) for runs in shelf.of_the_paper.values())
    return (
        f"**{len(findings)} claims, of which {len(findings) - left} have been looked at.** On record: "
        f"{len(shelf.measured)} runs of the protocol, {own} by the paper's recipe on the paper's data."
    )


def by_place(findings: Sequence[Finding]) -> tuple[list[Finding], dict[str, list[Finding]]]:
    """The claims of sentences, and those of the rows of Tables 1 to 3 by table."""
    tables: dict[str, list[Finding]] = {"Table 1": [], "Table 2": [], "Table 3": []}
    sentences = [finding for finding in findings if finding.claim.place not in tables]
    for finding in findings:
        if finding.claim.place in tables:
            tables[finding.claim.place].append(finding)
    return sentences, tables


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


def powers(table: str = "table1", seeds: int = 5) -> pd.DataFrame:
    """What `seeds` runs of each method can tell in a printed table, if the spread of runs is the paper's.

    Each comparison at the level a single true gain would be left by Holm over the table; pooled deviations.
    """
    source = published(table)
    networks = dict.fromkeys(network for network, _ in source)
    level = LEVEL / (len(networks) * len(COMPARISONS))
    rows = []
    for network in networks:
        for first, second in COMPARISONS:
            a, b = source[network, first], source[network, second]
            gain, std = a.mean - b.mean, ((a.std**2 + b.std**2) / 2) ** 0.5
            chance = power(gain, std, seeds, level)
            needed = seeds_needed(gain, std, level=level)
            rows.append(
                {"comparison": label(network, first, second), "the paper's gain": f"{gain:+.2f}",
                 "spread of runs": f"{std:.2f}", f"chance that {seeds} seeds show it": f"{chance:.0%}",
                 "seeds for 80 %": needed or "over 1,000"}
            )  # fmt: skip
    return pd.DataFrame(rows).set_index("comparison")
