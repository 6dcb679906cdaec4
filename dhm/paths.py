"""Where things lie: the clone, the embedded files, the reader's data sets and the run records."""

import os
from pathlib import Path

from dhm.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The clone this package is imported from; the working directory if it was installed without one."""
    clone = _PACKAGE.parent
    return clone if (clone / "pyproject.toml").is_file() else Path.cwd()


def embedded(name: str) -> Path:
    """A file that ships with the project, e.g. `paper/table1.csv`; a wheel carries it as `dhm/embedded/`."""
    for folder in (root() / "data", _PACKAGE / "embedded"):
        if (folder / name).exists():
            return folder / name
    raise InputError(f"the embedded file data/{name} is missing; install the project again or restore it from git")


def data_dir(folder: str | Path | None = None) -> Path:
    """Folder that holds the reader's data sets: the argument, else `$DHM_DATA`, else `data/` of the clone."""
    return Path(folder or os.environ.get("DHM_DATA") or root() / "data").expanduser()


def runs_dir(folder: str | Path | None = None) -> Path:
    """Folder of the run records: the argument, else `$DHM_RUNS`, else `runs/` of the clone."""
    return Path(folder or os.environ.get("DHM_RUNS") or root() / "runs").expanduser()


def records_dir() -> Path:
    """Folder of the committed run records, `data/records` of the clone."""
    return root() / "data" / "records"


def unfinished_dir() -> Path:
    """Folder of runs that wait for another machine, `data/unfinished` of the clone."""
    return root() / "data" / "unfinished"


def figures_dir() -> Path:
    """Folder of the figures: `$DHM_FIGURES`, else `figures/` beside the run records, so that a clone stays as it is."""
    return Path(os.environ.get("DHM_FIGURES") or runs_dir() / "figures").expanduser()


def committed_figures_dir() -> Path:
    """Folder of the figures of the committed notebooks, `figures/` of the clone."""
    return root() / "figures"


def existing(folder: str | Path) -> Path:
    """A folder that must be there.

    Raises:
        InputError: it is not.
    """
    found = Path(folder).expanduser()
    if not found.is_dir():
        raise InputError(f"there is no folder {folder}")
    return found


def shown(path: Path) -> str:
    """A path for a saved notebook: relative to the clone, or the name alone, so that it tells nothing of a machine."""
    return str(path.relative_to(root())) if path.is_relative_to(root()) else path.name
