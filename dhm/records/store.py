"""All the records in some folders."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhm import paths
from dhm.errors import InputError
from dhm.records.record import RESULT, RunRecord
from dhm.records.verification import damage

if TYPE_CHECKING:
    import pandas


def find(*folders: str | Path) -> Iterator[RunRecord]:
    """All records below the folders, broken ones named in a warning and passed over; of a finished run that was copied
    from one place to another only the first."""
    finished = set()
    for folder in folders:
        for file in sorted(Path(folder).rglob("config.json")):
            try:
                record = RunRecord.read(file.parent)
                name = record.config.experiment, record.config.name
                if name in finished:
                    continue
                if (record.folder / RESULT).is_file():
                    if told := damage(record):
                        raise InputError(told[0])
                    finished.add(name)
            except InputError as error:
                warnings.warn(f"run record passed over: {error}", stacklevel=2)
                continue
            yield record


def load_runs(*folders: str | Path) -> "pandas.DataFrame":
    """Finished runs as a table, one row a run: identity, settings, and `<head>/<metric>` of the last and best epoch.

    Args:
        folders: where to look; by default the local runs and the committed records.

    Raises:
        InputError: a folder that was named is not there.
    """
    import pandas

    places = [*map(paths.existing, folders)] or [paths.runs_dir(), paths.records_dir()]
    rows = []
    for record in find(*places):
        result = record.result
        if result is not None:
            rows.append(_row(record, result))
    return pandas.DataFrame(rows)


def _row(record: RunRecord, result: Mapping[str, Any]) -> dict[str, Any]:
    config = record.config
    row = {"experiment": config.experiment, "network": config.network, "dataset_name": config.dataset_name}
    row |= {**config.to_dict(), "digest": config.digest}
    for which in ("last", "best"):
        for head, metrics in result[which]["heads"].items():
            row |= {f"{which}/{head}/{metric}": value for metric, value in metrics.items()}
    return {**row, "seconds": result["seconds"], "folder": str(record.folder)}
