"""The notebooks from outside: papermill and the command line, from any folder; what cells print is nbval's affair."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import dhm
from dhm import notebook, paths
from dhm.__main__ import main

NAME = "table1_cifar100"


def test_papermill_and_the_command_line_from_any_folder(tmp_path: Path) -> None:
    """papermill trains a smoke grid from a foreign folder; the command line then finds every run finished."""
    folders = {"DHM_RUNS": str(tmp_path / "runs"), "DHM_FIGURES": str(tmp_path / "figures")}
    environment = {**os.environ, "DHM_PRESET": "smoke", **folders}

    def call(*command: str) -> str:
        child = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert child.returncode == 0, child.stderr[-2000:]
        return child.stdout

    notebook = str(paths.root() / "notebooks" / f"{NAME}.ipynb")
    call("papermill", notebook, "out.ipynb", "-y", "architectures: [cifar_resnet]")
    records = list((tmp_path / "runs" / "table1").iterdir())
    assert len(records) == 3
    assert all(dhm.RunRecord.read(folder).result for folder in records)
    before = {file: file.stat().st_mtime_ns for folder in records for file in folder.iterdir()}
    again = call("dhm", "notebook", NAME, "-p", "architectures", "['cifar_resnet']")
    assert again.strip() == str(tmp_path / "runs" / "notebooks" / f"{NAME}.ipynb")
    assert before == {file: file.stat().st_mtime_ns for folder in records for file in folder.iterdir()}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        "table1_errors.png",
        "table1_published_gains.png",
    }
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    text = "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", []))
    assert "[3/3]" in text


def test_a_page_that_cannot_be_written_to_its_end_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    page = tmp_path / "page.html"
    page.write_text("the page before")
    monkeypatch.setattr(notebook, "run_notebook", lambda *_: paths.root() / "notebooks" / "report.ipynb")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(dhm.InputError, match=r"page\.html cannot be written \(File too large\)"):
            notebook.write_report(page)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert page.read_text() == "the page before"
    assert len(notebook.write_report(page).read_text()) > 10_000


@pytest.mark.parametrize(
    ("command", "where"),
    [(["notebook", NAME], "file/x.ipynb"), (["notebook", NAME], "."), (["report"], "file/x.html"), (["report"], ".")],
)
def test_an_output_that_cannot_be_written_is_told_first(
    command: list[str], where: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert main([*command, "-o", str(tmp_path / where)]) == 2
    assert f"{tmp_path / where} cannot be written: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"argv": ["/nowhere/bin/python3", "{connection_file}"]}, "starts /nowhere/bin/python3, this is"),
        ({"argv": [sys.executable, "-S", "-c", "import ipykernel"]}, f"kernel.json starts {sys.executable}"),
        ({"argv": []}, "kernel.json starts nothing"),
        (None, "Jupyter has no kernel python3 that can be read"),
    ],
    ids=["gone", "without ipykernel", "empty", "no JSON"],
)
def test_a_kernel_of_another_python_is_told(
    spec: dict | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "kernels" / "python3" / "kernel.json"
    file.parent.mkdir(parents=True)
    file.write_text("{" if spec is None else json.dumps({**spec, "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("DHM_RUNS", str(tmp_path / "runs"))
    assert main(["notebook", "measured_runs"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_notebook_is_refreshed_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is named; what its run left is put there."""
    target = tmp_path / "notebooks" / "one.ipynb"
    target.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), target)
    executed = tmp_path / "executed.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("run")]), executed)
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setattr(notebook, "run_notebook", lambda *_: executed)
    for name in ("one", "one.ipynb"):
        assert notebook.refresh(name) == target
    assert list(target.parent.iterdir()) == [target]
    assert nbformat.read(target, as_version=4).cells[0].source == "run"
    with pytest.raises(dhm.InputError, match="there is no notebook 'two'; there are one"):
        notebook.refresh("two")


def test_the_console_shows_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Nor does the kernel, which writes to the same console: it once warned that it could be listened to."""
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}),
                                           nbformat.v4.new_code_cell("print(x + 1)")])  # fmt: skip
    page.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(page, tmp_path / "notebooks" / "one.ipynb")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    executed = nbformat.read(notebook.run_notebook("one", {"x": "41"}, tmp_path / "out.ipynb"), as_version=4)
    assert executed.cells[-1].outputs[0].text == "42\n"
    assert "warning" not in capfd.readouterr().err.lower()


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("false", True, False),
        ("True", False, True),
        ("[0, 1]", [], [0, 1]),
        ("3", 0, 3),
        ("0", 0.3, 0.0),
        ("paper", "", "paper"),
    ],
)
def test_values_of_parameters(text: str, default: object, value: object) -> None:
    assert notebook._value("x", text, default) == value


def test_a_folder_that_a_page_reads_must_be_there(tmp_path: Path) -> None:
    assert paths.existing(tmp_path) == tmp_path
    with pytest.raises(dhm.InputError, match=r"there is no folder .*nowhere"):
        paths.existing(tmp_path / "nowhere")


@pytest.mark.parametrize("folder", [".", "notebooks", "elsewhere"])
def test_a_kernel_finds_the_same_files_from_any_folder(folder: str, tmp_path: Path) -> None:
    """JupyterLab and nbval start a kernel in the notebook's folder, papermill in the caller's, a terminal anywhere."""
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    where = tmp_path if folder == "elsewhere" else paths.root() / folder
    code = """
    import pathlib, dhm
    from dhm import notebook, paths
    places = [paths.root(), paths.data_dir(), paths.runs_dir(), paths.committed_figures_dir(),
              paths.embedded("paper/table1.csv")]
    print(pathlib.Path.cwd(), *places, len(notebook.list_notebooks()), sep="|")
    """
    page = new_notebook(cells=[new_code_cell("\n".join(line.strip() for line in code.splitlines()))])
    unset = {name: value for name, value in os.environ.items() if name not in ("DHM_DATA", "DHM_RUNS", "DHM_FIGURES")}
    client = NotebookClient(page, kernel_name="python3", resources={"metadata": {"path": str(where)}})
    client.execute(env={**unset, "PYTHONPATH": str(paths.root())})
    cwd, *places, count = page.cells[0].outputs[0].text.strip().split("|")
    root = paths.root()
    assert Path(cwd) == where.resolve()
    assert list(map(Path, places)) == [
        root, root / "data", root / "runs", root / "figures", root / "data" / "paper" / "table1.csv",
    ]  # fmt: skip
    assert int(count) == len(notebook.list_notebooks())


def cells_of(name: str, kind: str) -> list[dict]:
    cells = json.loads((paths.root() / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


@pytest.mark.parametrize("place", ["a new machine", "in a clone", "installed"])
def test_the_tour_installs_what_is_missing(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "".join(next(c for c in cells_of("00_tour", "code") if "find_spec" in "".join(c["source"]))["source"])
    called: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(paths.root() / "notebooks" if place == "in a clone" else tmp_path)
    before = list(sys.path)
    if place == "installed":
        exec(source, {"repository": ""})
        assert (called, sys.path) == ([], before)
        return
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    clone = paths.root() if place == "in a clone" else tmp_path / "dhm-companion"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "-e", f"{clone}[notebooks]"]
    fetch = [["git", "clone", "--depth", "1", "https://example.org/x", str(clone)]] if place == "a new machine" else []
    exec(source, {"repository": "https://example.org/x"})
    assert called == [*fetch, install]
    assert sys.path == [str(clone), *before]
    if place == "a new machine":
        with pytest.raises(RuntimeError, match="give the repository's address"):
            exec(source, {"repository": ""})


def test_the_tour_shows_every_notebook() -> None:
    """The table at its end as it is committed; python -m dhm notebook 00_tour --refresh brings it up to date."""
    names = re.findall(r"\[(\w+)\]\(\1\.ipynb\)", notebook.contents())
    assert sorted(names) == notebook.list_notebooks()
    shown = [output["data"].get("text/markdown", "") for cell in cells_of("00_tour", "code")
             for output in cell["outputs"] if "data" in output]  # fmt: skip
    assert notebook.contents() in ["".join(text) for text in shown], "00_tour is not up to date"


@pytest.mark.parametrize("name", notebook.list_notebooks())
def test_no_dead_widget_is_committed(name: str) -> None:
    """A widget's state is nothing without its kernel, and its place would read "Loading widget..."."""
    content = (paths.root() / "notebooks" / f"{name}.ipynb").read_text()
    assert notebook.WIDGET not in content
    assert "widgets" not in json.loads(content)["metadata"]
