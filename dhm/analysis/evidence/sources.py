"""The sources of a table under each other: what the paper prints, full runs on record, and the runs just made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from dhm import paths
from dhm.analysis.evidence import pairs, protocol
from dhm.analysis.evidence.results import MORE_IS_BETTER, gain_table, gains, missed, samples, verdicts
from dhm.analysis.evidence.shelf import asked_for, identity
from dhm.analysis.statistics import COMPARISONS, Gain, Samples, label
from dhm.config import Config
from dhm.data.reid import PUBLISHED
from dhm.paper.numbers import PAPER_SEEDS
from dhm.paper.presets import CIFAR_PAPER, SMALL
from dhm.records.record import RunRecord
from dhm.records.store import load_runs
from dhm.zoo import family_of

DATASETS = {"cifar100": "CIFAR-100", "imagenet": "ImageNet", **{name: there.title for name, there in PUBLISHED.items()}}
"""The paper's data sets as it calls them."""
RECIPES = {"paper": "the paper's recipe", "released": "the released program's recipe"}
Recipe = Callable[..., list[Config]]
"""Of `dhm.paper.recipes`: preset -> runs."""
Grouping = Callable[[pd.DataFrame], Mapping[str, pd.DataFrame]]
"""Runs -> runs by title."""


@dataclass(frozen=True)
class Sources:
    """The sources of a table.

    Attributes:
        paper: title of what the paper prints.
        printed: its figures, in the form of `results.samples`.
        runs: title -> finished runs, those just made last; networks are named as the table's rows.
        own_data: titles of runs on the paper's own data, on which alone a gain is reproduced or contradicted.
        metric: the figure that is compared, e.g. "top1_error" or "mAP".
        caution: a sentence on what the runs just made can show.
        judged: the protocol's rows, from all runs on record.
    """

    paper: str
    printed: Samples
    runs: Mapping[str, pd.DataFrame]
    own_data: frozenset[str]
    metric: str
    caution: str
    judged: Sequence[protocol.Judged] = ()

    def figures(self) -> dict[str, Samples]:
        """Title -> figures over seeds, the paper's first."""
        return {self.paper: self.printed, **self.measured()}

    def measured(self) -> dict[str, Samples]:
        """The same of the runs alone."""
        return {title: samples(runs, self.metric) for title, runs in self.runs.items()}

    def gains(self, comparisons: Sequence[tuple[str, str]] = COMPARISONS) -> dict[str, list[Gain]]:
        """Gains of the runs by title; rows that the protocol speaks of are adjusted as it says, over its own table."""
        found = {}
        for title, source in self.measured().items():
            rows = self._by_protocol(title)
            own = gains(self._as_errors(source), comparisons)
            found[title] = [
                replace(rows[gain.label].gain, label=gain.label) if gain.label in rows else gain for gain in own
            ]
        return found

    def verdicts(self, comparisons: Sequence[tuple[str, str]] = COMPARISONS) -> dict[str, dict[str, str]]:
        """The words for `gains` by title and label; of rows that the protocol speaks of, its own."""
        printed = self._as_errors(self.printed)
        words = {}
        for title, found in self.gains(comparisons).items():
            own = verdicts(found, printed, title in self.own_data, PAPER_SEEDS, comparisons)
            words[title] = own | {name: row.verdict for name, row in self._by_protocol(title).items() if name in own}
        return words

    def tables(self, comparisons: Sequence[tuple[str, str]] = COMPARISONS) -> dict[str, pd.DataFrame]:
        """Every gain with its interval and its word, a table a title; single runs are compared image by image."""
        words, by_image = self.verdicts(comparisons), self.metric == "top1_error"
        return {
            title: gain_table(found, words[title], pairs.observed(self.runs[title], comparisons) if by_image else None)
            for title, found in self.gains(comparisons).items() if found
        }  # fmt: skip

    def _as_errors(self, source: Samples) -> Samples:
        return missed(source) if self.metric in MORE_IS_BETTER else source

    def _by_protocol(self, title: str) -> dict[str, protocol.Judged]:
        """Rows of the protocol that the runs under a title bear on, by the labels they have here."""
        rows = [(row, row.comparison) for row in self.judged]
        groups = self.runs[title][["experiment", "network"]].drop_duplicates().itertuples(index=False)
        return {
            label(network, asked.first, asked.second): row
            for experiment, network in groups
            for row, asked in rows
            if asked.experiment == experiment
        }


def by_experiment(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Runs under a title that names their experiment and data set."""
    if runs.empty:
        return {}
    groups = runs.groupby(["experiment", "dataset_name"])
    return {f"full runs, {experiment}, {dataset}": rows for (experiment, dataset), rows in groups}


def gather(
    recipe: Recipe, printed: Samples, made: Sequence[RunRecord], preset: str, *, metric: str = "top1_error",
    rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda runs: runs,
    others: Grouping = by_experiment,
    having: Callable[[pd.DataFrame], bool] = lambda runs: True, folder: str | Path | None = None,
) -> Sources:  # fmt: skip
    """The sources of a table. Runs on record by its own recipe on the paper's data stand under a title of their own.

    Args:
        recipe: what the table's runs are.
        printed: the paper's figures.
        made: the records of the runs just made, with this preset.
        rows: runs -> runs with networks named as the table's rows.
        others: for full runs on record that follow another recipe, or are on other data.
        having: whether runs under such a title belong to the table.
        folder: where full runs are kept, by default data/records.
    """
    where = Path(folder or paths.records_dir())
    on_record = load_runs(where) if where.is_dir() else pd.DataFrame()
    families = {family_of(config.arch) for config in recipe("paper")}
    if families <= set(CIFAR_PAPER):
        families = set(CIFAR_PAPER)  # networks for small images stand together
    column = f"last/B0/{metric}"
    alike = on_record[:0]
    if column in on_record:
        alike = on_record[on_record["arch"].map(family_of).isin(list(families))].dropna(subset=[column])
    kept = _on_record(recipe, alike, others, having)
    found = of_runs(recipe, printed, made, preset, kept, metric)
    judged = protocol.judge(on_record) if metric == "top1_error" else ()
    return replace(found, runs={title: rows(runs) for title, runs in found.runs.items()}, judged=judged)


def of_runs(
    recipe: Recipe, printed: Samples, made: Sequence[RunRecord], preset: str,
    kept: Mapping[str, pd.DataFrame] | None = None, metric: str = "top1_error",
) -> Sources:  # fmt: skip
    """The paper's figures and the runs just made, with others between them by title; arguments as of `gather`."""
    asked, configs = recipe("paper"), [record.config for record in made]
    this_run = f"{preset} run, {', '.join(dict.fromkeys(config.dataset_name for config in configs))}"
    found = {**(kept or {}), **({this_run: load_runs(*[record.folder for record in made])} if made else {})}
    small = {this_run} if preset in SMALL else set()
    own = frozenset(title for title, runs in found.items() if title not in small and _on_its_data(runs, asked))
    datasets = {DATASETS[config.dataset] for config in asked}
    epochs = max((config.epochs for config in configs), default=0)
    caution = f"*“{this_run}”: {len(configs)} runs.*"
    if small:
        caution = f"*“{this_run}” is a check that the pipeline works: tiny networks, {epochs} epochs at most. "
        caution += "It is no evidence for or against the claim.*"
    paper = f"paper, {datasets.pop()}" if len(datasets) == 1 else "paper"
    return Sources(paper, printed, found, own, metric, caution)


def _on_record(
    recipe: Recipe, runs: pd.DataFrame, others: Grouping, having: Callable[[pd.DataFrame], bool]
) -> dict[str, pd.DataFrame]:
    """Runs by one of the recipes under its name, each training and seed once whatever its arithmetic; the others."""
    if runs.empty:
        return {}
    found = {}
    trainings = pd.Series([identity(RunRecord.read(place).config) for place in runs["folder"]], index=runs.index)
    for which, words in RECIPES.items():
        follows = trainings.isin(asked_for(recipe, which))
        again = pd.DataFrame({"training": trainings, "seed": runs["seed"]}).duplicated()
        for dataset, group in runs[follows & ~again].groupby("dataset_name"):
            found[f"{DATASETS[str(dataset)]}, {words}"] = group
        runs, trainings = runs[~follows], trainings[~follows]
    return {**found, **{title: group for title, group in others(runs).items() if having(group)}}


def _on_its_data(runs: pd.DataFrame, asked: Sequence[Config]) -> bool:
    """Whether all runs are on the whole of a data set that is asked for, wherever it lies, with labels as asked for."""
    whole = {(config.dataset_name, config.label_noise, None, None) for config in asked}
    trained = [RunRecord.read(folder).config for folder in runs["folder"]]
    return {(c.dataset_name, c.label_noise, c.classes, c.train_per_class or None) for c in trained} <= whole
