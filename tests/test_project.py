"""Files that must agree, and notebooks as they are committed."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from dhm import paths
from dhm.notebook import list_notebooks

ROOT = paths.root()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("data/**/*.md")])
UNLISTED = ("plots", "widgets")
"""Folders with a file for each figure or view, which the names of these tell."""


def requirements() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"core": project["dependencies"], **project["optional-dependencies"]}


def test_environment_and_project_ask_for_the_same_packages() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    asked = requirements()
    assert sorted(listed) == sorted([*asked["core"], *asked["notebooks"], *asked["docs"], *asked["test"], "-e ."])
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f"python{python}" in environment["dependencies"]


def test_versions_agree() -> None:
    import dhm

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert dhm.__version__ == project["version"] == citation["version"]
    assert citation["preferred-citation"]["title"].startswith("Dynamic Hierarchical Mimicking")


def test_readme_names_what_there_is() -> None:
    """Every notebook and make target the README names exists, and every notebook is named."""
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"notebooks/(\w+)\.ipynb", readme)) == set(list_notebooks())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", readme)) <= targets
    assert len(readme.splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_readme_lists_the_house() -> None:
    """Every folder and file of the package at its first two levels, in the block that says where things are."""
    block = (ROOT / "README.md").read_text().partition("## Where things are")[2].partition("```")[2].partition("```")[0]
    for path in sorted((ROOT / "dhm").rglob("*")):
        depth = len(path.relative_to(ROOT / "dhm").parts)
        if (path.suffix == ".py" or path.is_dir()) and depth <= 2 and not path.name.startswith("__"):
            if path.parent.name in UNLISTED:
                continue
            assert re.search(rf"\b{path.stem}\b", block), f"README does not say where {path.relative_to(ROOT)} is"


def test_nothing_tells_of_a_machine() -> None:
    """No absolute path of a home or of this clone in notebooks, records and pages."""
    pattern = re.compile("|".join(map(re.escape, {f"{Path.home()}/", f"{ROOT.parent}/"} - {"//"})))
    for file in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/records/**/*.json")]:
        assert not pattern.search(file.read_text()), file


@pytest.mark.parametrize("name", list_notebooks())
def test_notebook_is_committed_as_the_house_wants_it(name: str) -> None:
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")
    parameters = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(parameters) == 1
    for line in "".join(parameters[0]["source"]).splitlines():
        assert re.fullmatch(r"[a-z][a-z0-9_]* = .+  # .+", line), line
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    tables = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    assert not any("<td>...</td>" in table for table in tables)  # pandas leaves rows out of long tables


LINES, COLUMNS = 14, 120
SHOWING = {"display", "print", "show"}
"""What a loop in a cell may call."""


def computing_loops(code: str) -> list[int]:
    """Lines of loops that do more than show.

    A cell may loop over what was computed elsewhere and show it, with calls of `display`, `print` and `plots.show`
    alone; and it may train, where the reader's own loop is what is told: a loop around a `.backward()`.
    """
    found = []
    for loop in ast.walk(ast.parse(code)):
        if isinstance(loop, ast.For | ast.AsyncFor | ast.While):
            calls = [
                step.value.func for step in loop.body if isinstance(step, ast.Expr) and isinstance(step.value, ast.Call)
            ]
            names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
            shows = isinstance(loop, ast.For) and len(names) == len(loop.body) and set(names) <= SHOWING
            trains = any(isinstance(node, ast.Attribute) and node.attr == "backward" for node in ast.walk(loop))
            if not (shows or trains):
                found.append(loop.lineno)
    return found


def test_loops_that_compute_are_told_from_those_that_show() -> None:
    showing = "for x in y:\n    display(f(x))\n    plots.show(x, 'x')\nfor a in b: print(a)"
    training = "def f():\n    for x in y:\n        for z in x:\n            loss(z).backward()"
    assert computing_loops(showing) == computing_loops(training) == []
    for code in ("for x in y:\n    z = x\n    print(z)", "for x in y:\n    z.append(x)", "while True:\n    print(1)",
                 "for x in y:\n    for z in x:\n        print(z)"):  # fmt: skip
        assert computing_loops(code)[0] == 1


@pytest.mark.parametrize("name", list_notebooks())
def test_notebook_narrates(name: str) -> None:
    """A cell is a sentence of the story: short, and what computes lies in the package, where it is tested."""
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    for cell in notebook["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert len(code.splitlines()) <= LINES, code
            assert max(map(len, code.splitlines())) <= COLUMNS, code
            assert not computing_loops(code), code
