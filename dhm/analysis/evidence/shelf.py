"""All run records there are, sorted by what they can say about the paper."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from dhm import paths
from dhm.analysis.evidence import protocol
from dhm.config import Config
from dhm.paper import recipes
from dhm.records.record import RunRecord
from dhm.records.store import find, load_runs

TABLES: Mapping[str, Callable[..., list[Config]]] = {
    "table1": recipes.table1, "table2": recipes.table2, "table3": recipes.table3, "table4": recipes.table4,
    "table5": recipes.table5, "directions": recipes.directions, "appendix_d": recipes.appendix_d,
    "appendix_e": recipes.appendix_e, "appendix_f": recipes.appendix_f,
}  # fmt: skip
"""What the paper trained for each of its tables: preset -> runs."""


@dataclass(frozen=True)
class Shelf:
    """Finished runs, sorted.

    Attributes:
        of_the_paper: table -> its runs on the paper's data, each seed once; by the paper's recipe, or for networks that
            have no such run by the released one.
        measured: runs of the protocol in data/records (`evidence.protocol`).
        records: those of `measured`, for what is kept beside the figures.
        others: finished runs that speak of no claim, e.g. quick ones; unfinished ones.
        broken: sentences on what could not be read.
    """

    of_the_paper: Mapping[str, pd.DataFrame]
    measured: pd.DataFrame
    records: Sequence[RunRecord]
    others: Sequence[str]
    broken: Sequence[str]

    def unclaimed(self) -> list[str]:
        """A line for each experiment whose runs speak of no claim, and the sentences on broken records."""
        groups: dict[str, list[str]] = {}
        for name in self.others:
            groups.setdefault(name.partition("/")[0], []).append(name.partition("/")[2])
        lines = [f"{experiment}: {len(names)} runs, e.g. {names[0]}" for experiment, names in groups.items()]
        return lines + [f"! {sentence}" for sentence in self.broken] or ["none"]


def gather(folders: Iterable[str | Path]) -> Shelf:
    """Read and sort every record below the folders; what cannot be read is named and passed over."""
    asked = {table: asked_for(recipe, "paper") | asked_for(recipe, "released") for table, recipe in TABLES.items()}
    planned, committed = {row.experiment for row in protocol.comparisons()}, paths.records_dir().resolve()
    papers: dict[str, dict[tuple[str, int], RunRecord]] = {table: {} for table in TABLES}
    measured: list[RunRecord] = []
    others: list[str] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for record in find(*folders):
            finished = record.result is not None
            name = f"{record.config.experiment}/{record.folder.name}"
            training = identity(record.config)
            tables = [table for table, known in asked.items() if training in known]
            if not finished:
                others.append(f"{name} (not finished)")
            elif record.config.experiment in planned and record.folder.resolve().is_relative_to(committed):
                measured.append(record)
            elif not tables:
                others.append(name)
            elif (training, record.config.seed) in papers[tables[0]]:
                others.append(f"{name} (this seed of the same training is on record already)")
            else:
                for table in tables:
                    papers[table][training, record.config.seed] = record
        frames = {table: load_runs(*_one_recipe(table, found)) for table, found in papers.items() if found}
        by_protocol = load_runs(*(record.folder for record in measured)) if measured else pd.DataFrame()
    broken = [_public(str(warning.message)) for warning in told if "passed over" in str(warning.message)]
    return Shelf(frames, by_protocol, measured, others, sorted(set(broken)))


def _one_recipe(table: str, found: Mapping[tuple[str, int], RunRecord]) -> list[Path]:
    """Folders of a table's runs: of a network that has any by the paper's recipe these alone, else the released's."""
    by_the_text = asked_for(TABLES[table], "paper")
    settled = {record.config.network for (training, _), record in found.items() if training in by_the_text}
    return [
        record.folder
        for (training, _), record in found.items()
        if training in by_the_text or record.config.network not in settled
    ]


@cache
def asked_for(recipe: Callable[..., list[Config]], preset: str) -> frozenset[str]:
    """Identities of a table's runs by the recipe of "paper" or of "released", the released program's."""
    return frozenset(identity(config) for config in recipe(preset))


def identity(config: Config) -> str:
    """A run's digest whatever its seed, its arithmetic and the place of its data set on a disk."""
    return config.replace(seed=0, precision=Config.precision, dataset=config.dataset_name).digest


def _public(sentence: str) -> str:
    """A sentence without the folders of this machine."""
    for folder in (paths.root(), paths.runs_dir()):
        sentence = sentence.replace(f"{folder}/", "")
    return sentence
