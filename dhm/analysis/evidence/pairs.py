"""Two single runs compared image by image: McNemar's test, and what is left of it when only two errors are printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from dhm.analysis.statistics import Samples, compared, holm_p, label, p_word
from dhm.analysis.variants import names
from dhm.errors import InputError
from dhm.records.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd

VALIDATION = 50_000
"""Images of ImageNet's validation set."""


@dataclass(frozen=True)
class Pair:
    """The test images on which two classifiers differ.

    Attributes:
        only_first, only_second: images that the first alone, and the second alone, gets wrong.
        exact: False where the two are not known but for their difference, and taken as large as they can be, so that
            the p-value is the largest possible.
    """

    only_first: int
    only_second: int
    exact: bool = True

    @property
    def p(self) -> float:
        """Two-sided p-value of McNemar's exact test.

        It speaks of the choice of test images alone: were a training repeated with another seed, both counts would
        change.
        """
        differ = self.only_first + self.only_second
        return float(stats.binomtest(self.only_first, differ).pvalue) if differ else 1.0


def observed(runs: "pd.DataFrame", comparisons: Sequence[tuple[str, str]]) -> dict[str, Pair]:
    """Pairs of finished runs by the label of their comparison, where each side is a single run.

    Args:
        runs: of `dhm.load_runs`.
        comparisons: (first, second) variants; "dhm at B1" is branch B1's classifier of the run "dhm".

    Raises:
        InputError: two runs that were tested on different images.
    """
    records = [RunRecord.read(folder) for folder in runs["folder"]] if len(runs) else []
    by_key: dict[tuple[str, str], list[RunRecord]] = {}
    for record, name in zip(records, names([record.config for record in records]), strict=True):
        by_key.setdefault((record.config.network, name), []).append(record)
    found = {}
    for network in dict.fromkeys(network for network, _ in by_key):
        for first, second in comparisons:
            (a, head_a), (b, head_b) = (_run_and_head(name) for name in (first, second))
            sides = by_key.get((network, a), []), by_key.get((network, b), [])
            if len(sides[0]) == len(sides[1]) == 1:
                found[label(network, first, second)] = _differences(sides[0][0], head_a, sides[1][0], head_b)
    return found


def _run_and_head(name: str) -> tuple[str, str]:
    run, _, head = name.partition(" at ")
    return run, head or "B0"


def _differences(first: RunRecord, head: str, second: RunRecord, other: str) -> Pair:
    a, b = first.predictions(), second.predictions()
    if not np.array_equal(a.labels, b.labels):
        raise InputError(f"{first.folder.name} and {second.folder.name} were tested on different images")
    wrong_a = a.predicted[a.heads.index(head)] != a.labels
    wrong_b = b.predicted[b.heads.index(other)] != b.labels
    return Pair(int((wrong_a & ~wrong_b).sum()), int((wrong_b & ~wrong_a).sum()))


def at_worst(printed: Samples, comparisons: Sequence[tuple[str, str]]) -> dict[str, Pair]:
    """What two printed errors leave of the test: no image is wrong in both, which gives the largest p-value.

    Every image both get wrong takes one from each side and leaves the difference as it is, which lowers p.
    """
    wrong = {key: round(sample.mean * VALIDATION / 100) for key, sample in printed.items()}
    return {
        label(network, first, second): Pair(wrong[network, first], wrong[network, second], exact=False)
        for network, first, second in compared(printed, comparisons)
    }


def columns(pairs: Mapping[str, Pair]) -> dict[str, dict[str, str]]:
    """Cells of a table for each pair: images the second wins from the first and loses to it, the p-value, and that by
    Holm over the pairs."""
    adjusted = holm_p([pair.p for pair in pairs.values()])
    cells = {}
    for (name, pair), holm in zip(pairs.items(), adjusted, strict=True):
        cells[name] = {"images won : lost": f"{pair.only_first:,} : {pair.only_second:,}"} if pair.exact else {}
        at_most = "" if pair.exact else " at most"
        cells[name] |= {f"p{at_most} (McNemar)": p_word(pair.p), f"p{at_most} (Holm)": p_word(float(holm))}
    return cells
