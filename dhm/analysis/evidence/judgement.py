"""The claims judged: what the paper's own numbers carry, and what the run records say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd

from dhm.analysis.evidence import measures, protocol
from dhm.analysis.evidence.claims import Claim, Finding, networks, printed_errors
from dhm.analysis.evidence.factorial import interaction
from dhm.analysis.evidence.proofs import PROOFS
from dhm.analysis.evidence.results import MORE_IS_BETTER, by_dataset, missed, samples
from dhm.analysis.evidence.shelf import Shelf
from dhm.analysis.evidence.wrong_labels import by_ratio
from dhm.analysis.statistics import Difference, Gain, Sample, Samples, compared, holm, label, tost, verdict, welch
from dhm.paper.numbers import PAPER_SEEDS


@dataclass(frozen=True)
class Ours:
    """Our runs of a printed table on the paper's data, as far as there are any.

    Attributes:
        errors: in the form of the printed ones.
        gains: of all claims on its rows by label, judged together.
    """

    errors: Samples
    gains: Mapping[str, Gain]

    def of(self, network: str, method: str) -> Sample:
        """The errors of a network under a method, of no run where there is none."""
        return self.errors.get((network, method), Sample.of([]))

    def gain(self, network: str, first: str, second: str) -> Gain | None:
        """The gain of the second method over the first, if any claim on a row speaks of the two."""
        turned = self.gains.get(label(network, second, first))
        return self.gains.get(label(network, first, second)) or (turned and turned.mirrored())


def judge(claims: Sequence[Claim], shelf: Shelf) -> list[Finding]:
    """Every claim with what the paper's own numbers carry and what the records say."""
    keys = dict.fromkeys((claim.tables[0], claim.metric) for claim in claims if claim.tables)
    ours = {key: _ours(*key, claims, shelf.of_the_paper[key[0]]) for key in keys if key[0] in shelf.of_the_paper}
    measured = {(row.comparison.experiment, row.comparison.first, row.comparison.second): row
                for row in protocol.judge(shelf.measured)}  # fmt: skip
    found = []
    for claim in claims:
        if claim.kind in PROOFS:
            found.append(Finding(claim, "–", "–", *PROOFS[claim.kind]()))
        elif claim.kind == "same":
            found.append(_same(claim))
        elif claim.kind == "measure":
            found.append(Finding(claim, "no number", "–", *measures.compare(claim, shelf)))
        else:
            own = ours.get((claim.tables[0], claim.metric), Ours({}, {}))
            elsewhere = [measured[name, claim.first, claim.second] for name in claim.elsewhere
                         if (name, claim.first, claim.second) in measured]  # fmt: skip
            alone = {"number": _number, "between": _between, "larger": _larger}
            judged = alone[claim.kind](claim, own) if claim.kind in alone else _comparison(claim, own, elsewhere)
            found.append(judged)
    return found


def _ours(table: str, metric: str, claims: Sequence[Claim], runs: pd.DataFrame) -> Ours:
    """Gains by Holm over the rows of the table that are claimed, run or not."""
    rows_of = {"table3": by_dataset, "appendix_e": by_ratio}
    errors = samples(rows_of.get(table, lambda runs: runs)(runs), metric)
    errors = missed(errors) if metric in MORE_IS_BETTER else errors
    rows = [(network, claim.first, claim.second) for claim in claims
            if (claim.kind, claim.tables, claim.metric) == ("row", (table,), metric)
            for network in networks(claim)]  # fmt: skip
    gains = [
        welch(label(network, first, second), errors[network, first], errors[network, second])
        for network, first, second in rows
        if {(network, first), (network, second)} <= errors.keys()
    ]
    return Ours(errors, {gain.label: gain for gain in holm(gains, planned=len(rows))})


def _comparison(claim: Claim, ours: Ours, elsewhere: Sequence[protocol.Judged]) -> Finding:
    """A claim on one or all rows: by our runs on the paper's data and by the protocol's on other data.

    What is open on the paper's data stands behind what is known elsewhere.
    """
    printed, carried = _printed(claim)
    expected = _printed_gains(claim.tables[0], claim.metric, claim.first, claim.second)
    runs = {
        network: gain
        for network in networks(claim)
        if (gain := ours.gain(network, claim.first, claim.second)) is not None
    }
    judged = [row for row in elsewhere if row.verdict != "not run"]
    words = "; ".join(f"{row.verdict} ({row.comparison.experiment})" for row in judged)
    said = [(_told([row.gain for row in judged]), words)] if judged else []
    if runs:
        each = [
            verdict(gain, round(expected[network].value, 6), True, PAPER_SEEDS, claim.at_least)
            for network, gain in runs.items()
        ]
        missing = ["not run"] * (len(networks(claim)) - len(runs))
        own = _told([*runs.values()]), _summed(each + missing)
        said = [own, *said] if own[1].startswith(("reproduced", "contradicted")) else [*said, own]
    return Finding(claim, printed, carried, *map("; ".join, zip(*said, strict=True)))


@cache
def _printed_gains(table: str, metric: str, first: str, second: str) -> dict[str, Gain]:
    """Gains of one comparison in all networks of a printed table, Holm over them."""
    errors = printed_errors(table, metric)
    both = [network for network, _, _ in compared(errors, [(first, second)])]
    return dict(zip(both, holm([welch(n, errors[n, first], errors[n, second]) for n in both]), strict=True))


def _printed(claim: Claim) -> tuple[str, str]:
    """The printed gains, and what they carry by themselves."""
    gains = _printed_gains(claim.tables[0], claim.metric, claim.first, claim.second)
    chosen = [gains[network] for network in networks(claim)]
    printed = _range([gain.value for gain in chosen])
    if claim.at_least is not None:
        over = sum(round(gain.value, 6) > claim.at_least for gain in chosen)
        return printed, f"above {claim.at_least:+g} in {over} of {len(chosen)} as printed"
    rises = sum(gain.value > 0 for gain in chosen)
    if any(math.isnan(gain.p) for gain in chosen):
        return printed, f"positive in {rises} of {len(chosen)}, single runs" if len(chosen) > 1 else "one run"
    sure = sum(gain.low > 0 for gain in chosen)
    if len(chosen) > 1:
        return printed, f"beyond chance in {sure} of {len(chosen)}, positive in {rises}"
    return printed, "beyond chance" if sure else "within chance"


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:+.2f}" if len(values) == 1 else f"{low:+.2f} to {high:+.2f}"


def _same(claim: Claim) -> Finding:
    """Whether a number is the same in all tables that print it; no training decides it."""
    key = claim.networks[0], claim.second
    values = {table: printed_errors(table, claim.metric)[key].mean for table in claim.tables}
    printed = ", ".join(f"{value:.3f} ({table})" for table, value in values.items())
    if len(set(values.values())) == 1:
        return Finding(claim, printed, "agrees", "–", "holds")
    return Finding(claim, printed, "differs", "–", "misprint")


def _number(claim: Claim, ours: Ours) -> Finding:
    """Whether our runs on the paper's data come to the printed error, both with the spread of their runs."""
    key = claim.networks[0], claim.second
    printed, found = printed_errors(claim.tables[0], claim.metric)[key], ours.of(*key)
    same = tost(found, printed)
    if same is None:
        return Finding(claim, str(printed), "–", str(found), "one run" if found.n else "not run")
    word = same.word() if found.n >= PAPER_SEEDS else f"incomplete ({found.n} of {PAPER_SEEDS} seeds)"
    return Finding(claim, str(printed), "–", str(found), word)


def _between(claim: Claim, ours: Ours) -> Finding:
    """The figures of two networks, tested by themselves."""
    first, second = zip(claim.networks, (claim.first, claim.second), strict=True)
    printed = printed_errors(claim.tables[0], claim.metric)
    expected = welch(claim.id, printed[first], printed[second])
    gain = welch(claim.id, ours.of(*first), ours.of(*second))
    return _by_itself(claim, expected, gain, _told([gain]))


def _larger(claim: Claim, ours: Ours) -> Finding:
    """The difference of the gains in two networks, tested by itself."""
    cells = [(network, method) for network in claim.networks for method in (claim.first, claim.second)]
    printed = printed_errors(claim.tables[0], claim.metric)
    expected, found = (
        interaction("", (a, b), (c, d))
        for a, b, c, d in ([printed[key] for key in cells], [ours.of(*key) for key in cells])
    )
    return _by_itself(claim, expected, found, str(found))


def _by_itself(claim: Claim, expected: Difference, found: Difference, told: str) -> Finding:
    carried = "beyond chance" if expected.low > 0 else "within chance"
    word = verdict(found, expected.value, same_data=True, seeds=PAPER_SEEDS)
    return Finding(claim, f"{expected.value:+.2f}", carried, told if found.fewest else "–", word)


def _told(gains: Sequence[Gain]) -> str:
    """Gains with their intervals; of many the range."""
    if len(gains) > 3:
        return _range([gain.value for gain in gains])
    return "; ".join(
        f"{gain.value:+.2f}" + (f" [{gain.low:+.2f}, {gain.high:+.2f}]" if math.isfinite(gain.low) else "")
        for gain in gains
    )


def _summed(words: Sequence[str]) -> str:
    """One word for a claim on several rows: all must be reproduced, and one contradiction is enough against it."""
    if len(words) == 1:
        return words[0]
    if len(set(words)) == 1:
        return f"{words[0]} (all {len(words)})"
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    return f"{'contradicted' if 'contradicted' in words else 'inconclusive'}: {counts}"
