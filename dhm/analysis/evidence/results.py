"""Runs and printed numbers brought to the same form: samples of errors, and tables of gains with their verdicts."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from dhm.analysis.evidence.pairs import Pair, columns
from dhm.analysis.statistics import (
    COMPARISONS,
    Gain,
    Sample,
    Samples,
    compared,
    holm,
    label,
    networks_of,
    p_word,
    verdict,
    welch,
)
from dhm.analysis.variants import names, spoken
from dhm.config import METHODS
from dhm.errors import InputError
from dhm.paper import numbers
from dhm.records.record import RunRecord

MORE_IS_BETTER = ("mAP", "rank1")
"""Figures that are no errors."""


def samples(runs: pd.DataFrame, metric: str = "top1_error", which: str = "last") -> Samples:
    """Errors of finished runs (`dhm.load_runs`) after the "last" or the "best" epoch; those of branch B1's classifier
    stand under "dhm at B1".

    Raises:
        InputError: another epoch.
    """
    if which not in ("last", "best"):
        raise InputError(f"which must be last or best, not {which!r}")
    values: dict[tuple[str, str], list[float]] = {}
    called = names([RunRecord.read(folder).config for folder in runs["folder"]]) if len(runs) else []
    heads = [place[1] for place in (column.split("/") for column in runs.columns) if place[::2] == [which, metric]]
    for run, variant in zip(runs.to_dict("records"), called, strict=True):
        for head in heads:
            if not math.isnan(error := run[f"{which}/{head}/{metric}"]):
                name = variant if head == "B0" else f"{variant} at {head}"
                values.setdefault((run["network"], name), []).append(error)
    return {key: Sample.of(found) for key, found in values.items()}


def grouped(records: Iterable[RunRecord]) -> dict[str, dict[str, list[RunRecord]]]:
    """Experiment -> method -> its finished runs by seed; experiments by name, methods in the order of all figures."""
    found: dict[str, dict[str, list[RunRecord]]] = {}
    finished = [record for record in records if record.result is not None]
    for record in sorted(finished, key=lambda record: (record.config.experiment, record.config.seed)):
        methods = found.setdefault(record.config.experiment, {method: [] for method in METHODS})
        methods[record.config.method].append(record)
    return {name: {method: runs for method, runs in methods.items() if runs} for name, methods in found.items()}


def by_dataset(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with the data set in the name of the network, as Table 3 has a row for each: "resnet50 on market1501"."""
    return runs if runs.empty else runs.assign(network=runs["network"] + " on " + runs["dataset_name"])


def published(
    table: str, metric: str = "top1_error", networks: Sequence[str] = (), methods: Sequence[str] = ()
) -> Samples:
    """A table of the paper in the same form, or its rows of some networks and methods."""
    return {
        (number.network, number.method): Sample(number.value, number.std if number.std else math.nan, number.n)
        for number in numbers.table(table)
        if number.metric == metric
        and number.network in (networks or (number.network,))
        and number.method in (methods or (number.method,))
    }


def printed_everywhere(network: str, method: str, tables: Sequence[str]) -> pd.DataFrame:
    """Every place that prints a top-1 error of a network under a method, with the number."""
    places = {
        number.source: number.value
        for table in tables
        for number in numbers.table(table)
        if (number.network, number.method, number.metric) == (network, method, "top1_error")
    }
    return pd.DataFrame({"error (%)": places}).rename_axis("place")


def mimicking_by_epoch(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Which side branches took part in the mimicking of each epoch, of the runs that draw them (appendix D)."""
    drawn = {
        (record.config.mimic_probability, record.config.seed): [
            " ".join(line["mimicking"]) or "none" for line in record.metrics
        ]
        for record in records
        if record.config.mimic_probability < 1
    }
    table = pd.DataFrame([*drawn.values()], pd.MultiIndex.from_tuples(drawn, names=["probability", "seed"]))
    return table.rename(columns=lambda epoch: f"epoch {epoch}")


def overview(sources: Mapping[str, str | pd.DataFrame], variants: Sequence[str], which: str = "last") -> pd.DataFrame:
    """Top-1 / top-5 error side by side, a row a variant, a column a network of a source.

    Args:
        sources: title -> name of a table of the paper, or finished runs.
        variants: the rows, in order.
        which: the epoch of our runs, "last" or "best".
    """
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for title, source in sources.items():
        top1, top5 = (
            published(source, metric) if isinstance(source, str) else samples(source, metric, which)
            for metric in ("top1_error", "top5_error")
        )
        for network, name in top1:
            error = f"{top1[network, name]} / {top5.get((network, name), '–')}"
            cells.setdefault((title, network), {})[spoken(name)] = error
    table = pd.DataFrame(cells, index=[spoken(name) for name in variants]).fillna("–")
    return table.rename_axis(columns=["source", "network"])


def missed(source: Samples) -> Samples:
    """What is missing to 100 %, for figures of which more is better: a gain is a fall of it, as it is of errors."""
    return {key: Sample(100 - sample.mean, sample.std, sample.n) for key, sample in source.items()}


def error_table(
    sources: Mapping[str, Samples], words: Mapping[str, Mapping[str, str]] | None = None, more_is_better: bool = False
) -> pd.DataFrame:
    """Errors and gains of several sources under each other, a row for each network.

    Args:
        sources: title -> errors, or with `more_is_better` figures like mAP.
        words: title -> verdicts by row label (`verdicts`), for the sources that have them.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for title, source in sources.items():
        for network in networks_of(source):
            rows[title, network] = {m: str(source[network, m]) for m in METHODS if (network, m) in source}
        for network, first, second in compared(source, COMPARISONS[:2]):
            low, high = (first, second) if more_is_better else (second, first)
            gain = source[network, high].mean - source[network, low].mean
            rows[title, network][f"gain of {second.upper()}"] = f"{gain:+.2f}"
    for (title, network), row in rows.items():
        if words and title in words:
            row["verdict on DHM"] = words[title].get(label(network, "baseline", "dhm"), "–")
    table = pd.DataFrame([*rows.values()], pd.MultiIndex.from_tuples(rows, names=["source", "network"]))
    return table.fillna("–").rename(columns=spoken)


def variant_table(sources: Mapping[str, Samples], variants: Sequence[str]) -> pd.DataFrame:
    """Errors of several sources under each other, a row for each network, a column for each of the variants."""
    cells = {
        (title, network): {spoken(name): str(source.get((network, name), "–")) for name in variants}
        for title, source in sources.items()
        for network in networks_of(source)
    }
    return pd.DataFrame([*cells.values()], pd.MultiIndex.from_tuples(cells, names=["source", "network"]))


def gains(source: Samples, comparisons: Sequence[tuple[str, str]] = COMPARISONS) -> list[Gain]:
    """Gains of all comparisons (first, second) in all networks that have both, Holm over the rows."""
    return holm(
        [
            welch(label(network, first, second), source[network, first], source[network, second])
            for network, first, second in compared(source, comparisons)
        ]
    )


def extent(found: Sequence[Gain]) -> str:
    """Gains of one comparison in several networks, in words: from the least to the largest, and how many stand."""
    gains, sure = [gain.value for gain in found], sum(gain.low > 0 for gain in found)
    return f"{min(gains):.2f} to {max(gains):.2f} points; beyond chance in **{sure} of {len(found)}** networks"


def gain_table(
    found: Sequence[Gain], verdicts: Mapping[str, str] | None = None, pairs: Mapping[str, Pair] | None = None
) -> pd.DataFrame:
    """Gains as a table: points, adjusted interval, p by Welch and by Holm, and the verdict where one is given.

    Args:
        pairs: of single runs by label; McNemar's test takes the place of Welch's, which needs several.
    """
    mcnemar = columns(pairs or {})
    rows = [
        {
            "comparison": gain.label,
            "gain (points)": "–" if math.isnan(gain.value) else f"{gain.value:+.2f}",
            **(mcnemar[gain.label] if gain.label in mcnemar else _welch_columns(gain)),
            **({"verdict": verdicts[gain.label]} if verdicts else {}),
        }
        for gain in found
    ]
    return pd.DataFrame(rows).set_index("comparison").fillna("–") if rows else pd.DataFrame()


def _welch_columns(gain: Gain) -> dict[str, str]:
    interval = f"[{gain.low:+.2f}, {gain.high:+.2f}]" if gain.fewest > 1 else ("–", "one run")[gain.fewest]
    return {
        "Holm-adjusted interval": interval,
        "p (Welch)": p_word(gain.p),
        "p (Holm)": p_word(gain.adjusted_p),
    }


def verdicts(
    found: Sequence[Gain], printed: Samples, same_data: bool, seeds: int,
    comparisons: Sequence[tuple[str, str]] = COMPARISONS,
) -> dict[str, str]:  # fmt: skip
    """The protocol's word for every row; the paper's gain is looked up under the same network and methods."""
    expected = {gain.label: round(gain.value, 6) for gain in gains(printed, comparisons)}
    return {gain.label: verdict(gain, expected.get(gain.label), same_data, seeds) for gain in found}
