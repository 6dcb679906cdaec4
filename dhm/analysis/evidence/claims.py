"""The paper's claims: what can be checked, where it stands, and how it is judged.

`data/paper/claims.csv` holds a line a claim: where it stands, in our words, and how it is judged:

    row        `second` beats `first` in one network of a printed table
    every      the same in every network of the table, or in those named, perhaps by more than `at_least` points
    between    `second` in the second network named beats `first` in the first
    larger     `second` gains more over `first` in the second network named than in the first
    number     the mean error of one network under `second`, to within the margin of `statistics.tost`
    same       one number, printed in several tables, is the same everywhere; else a "misprint"
    measure    a quantity the paper prints no number of is lower for `second`: train_accuracy, gradient_cosine,
               kernel_correlation, cka
    inference  branches cost nothing once they are thrown away
    expansion  the term Eq. 11 keeps is the leading one
"""

import csv
from dataclasses import dataclass
from functools import cache

from dhm import paths
from dhm.analysis.evidence.proofs import PROOFS
from dhm.analysis.evidence.results import MORE_IS_BETTER, missed, published
from dhm.analysis.statistics import Samples, compared
from dhm.errors import InputError

KINDS = ("row", "every", "between", "larger", "number", "same", "measure", *PROOFS)


@dataclass(frozen=True)
class Claim:
    """A line of claims.csv.

    Attributes:
        tables: where its numbers are printed, several only for "same".
        networks: the networks it speaks of; all of the table if none is named.
        elsewhere: experiments of the protocol that bear on it, on other data.
    """

    id: str
    place: str
    claim: str
    kind: str
    tables: tuple[str, ...]
    metric: str
    networks: tuple[str, ...]
    first: str
    second: str
    at_least: float | None
    elsewhere: tuple[str, ...]
    notebook: str


@dataclass(frozen=True)
class Finding:
    """A claim judged.

    Attributes:
        printed: the paper's number or numbers, as a gain where it compares.
        carried: what these numbers alone show.
        ours: our gain with its interval.
        verdict: the words of `statistics.verdict`, or of a proof.
    """

    claim: Claim
    printed: str
    carried: str
    ours: str = "–"
    verdict: str = "not run"


def read() -> list[Claim]:
    """All claims in their order.

    Raises:
        InputError: a line with a kind that does not exist.
    """
    with open(paths.embedded("paper/claims.csv"), newline="", encoding="utf-8") as lines:
        found = [
            Claim(
                row["id"], row["place"], row["claim"], row["kind"], tuple(row["table"].split()), row["metric"],
                tuple(filter(None, row["networks"].split(";"))), row["first"], row["second"],
                float(row["at_least"]) if row["at_least"] else None, tuple(row["elsewhere"].split()), row["notebook"],
            )
            for row in csv.DictReader(lines)
        ]  # fmt: skip
    for claim in found:
        if claim.kind not in KINDS:
            raise InputError(f"claim {claim.id}: kind must be one of {', '.join(KINDS)}, not {claim.kind!r}")
    return found


def networks(claim: Claim) -> list[str]:
    """The networks a claim on a table speaks of."""
    both = compared(printed_errors(claim.tables[0], claim.metric), [(claim.first, claim.second)])
    return [network for network, _, _ in both if network in (claim.networks or (network,))]


@cache
def printed_errors(table: str, metric: str) -> Samples:
    """A printed table as errors; of figures of which more is better, what is missing to 100 %.

    Appendices compare with rows of Table 1, which stand beside theirs.
    """
    if table.startswith("appendix"):
        return {**published("table1"), **published(table), **missed(published(table, "top1_accuracy"))}
    printed = published(table, metric)
    return missed(printed) if metric in MORE_IS_BETTER else printed
