"""The notebooks from outside: papermill and the command line, from any folder; what cells print is nbval's affair."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dhm
from dhm import notebook, paths
from dhm.__main__ import main

NAME = "table1_cifar100"


def test_papermill_and_the_command_line_from_any_folder(tmp_path: Path) -> None:
    """papermill trains the smoke grid from a foreign folder; the command line then finds every run finished."""
    folders = {"DHM_RUNS": str(tmp_path / "runs"), "DHM_FIGURES": str(tmp_path / "figures")}
    environment = {**os.environ, "DHM_PRESET": "smoke", **folders}

    def call(*command: str) -> str:
        child = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert child.returncode == 0, child.stderr[-2000:]
        return child.stdout

    call("papermill", str(paths.root() / "notebooks" / f"{NAME}.ipynb"), "out.ipynb")
    records = list((tmp_path / "runs" / "table1").iterdir())
    assert len(records) == 9
    assert all(dhm.RunRecord.read(folder).result for folder in records)
    before = {file: file.stat().st_mtime_ns for folder in records for file in folder.iterdir()}
    assert call("dhm", "notebook", NAME).strip() == str(tmp_path / "runs" / "notebooks" / f"{NAME}.ipynb")
    assert before == {file: file.stat().st_mtime_ns for folder in records for file in folder.iterdir()}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        "table1_errors.png",
        "table1_published_gains.png",
    }
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    text = "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", []))
    assert "[9/9]" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table9"], "there is no notebook 'table9'; there are"),
        ([NAME, "-p", "epochs", "3"], f"{NAME} has no parameter 'epochs'; it has preset, "),
        ([NAME, "-p", "seeds", "1"], "the parameter seeds must be a list"),
        ([NAME, "-p", "download", "maybe"], "the parameter download must be a bool"),
    ],
)
def test_wrong_calls_are_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["notebook", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [("false", True, False), ("True", False, True), ("[0, 1]", [], [0, 1]), ("3", 0, 3), ("paper", "", "paper")],
)
def test_values_of_parameters(text: str, default: object, value: object) -> None:
    assert notebook._value("x", text, default) == value
