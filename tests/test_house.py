"""The house itself: floors, read from the code; and what a training node may lack."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhm import paths

PACKAGE = paths.root() / "dhm"
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({file.parent for file in FILES})
EXTRA = {"IPython", "ipywidgets", "matplotlib", "nbconvert", "pandas", "papermill", "scipy", "seaborn"}
"""Packages of the extra `notebooks`, which a training node may lack."""
NEEDS_EXTRA = {"analysis", "plots", "widgets", "notebook.py"}


def imported(file: Path) -> Iterator[Path]:
    """Files of the package that a file imports from, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dhm":
            for alias in node.names:
                below = PACKAGE.parent.joinpath(*node.module.split("."))
                module = (
                    below / alias.name if (below / alias.name).is_dir() else (below / alias.name).with_suffix(".py")
                )
                yield _file(module if module.exists() else below)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "dhm":
                    yield _file(PACKAGE.parent.joinpath(*alias.name.split(".")))


def _file(module: Path) -> Path:
    return module / "__init__.py" if module.is_dir() else module.with_suffix(".py")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE.parent)))
def test_imports_go_down(folder: Path) -> None:
    """What lies in a folder, files and folders alike, stands on floors: no two import each other, by whatever way.

    A package's own front door may open on all of its rooms, so `__init__.py` stands above them.
    """
    graph: dict[str, set[str]] = {}
    for file in FILES:
        if file.is_relative_to(folder):
            here = file.relative_to(folder).parts[0]
            targets = {other.relative_to(folder).parts[0] for other in imported(file) if other.is_relative_to(folder)}
            graph.setdefault(here, set()).update(targets - {here})
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"in {folder.name}/ these import each other in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE.parent)))
def test_training_needs_no_extra(file: Path) -> None:
    if file.relative_to(PACKAGE).parts[0] in NEEDS_EXTRA:
        return
    tops = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in tops if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in tops if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & EXTRA


def test_tests_lie_in_the_rooms_they_test() -> None:
    """But for the suite that stops, damages and misuses the whole."""
    tests = paths.root() / "tests"
    for folder in sorted({file.parent for file in tests.rglob("test_*.py")} - {tests / "reliability"}):
        assert (PACKAGE / folder.relative_to(tests)).is_dir(), folder
