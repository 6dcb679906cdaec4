"""What a run record says of where it was made."""

import subprocess
from pathlib import Path

import pytest
import torch

from dhm.records import environment


def repository(folder: Path) -> str:
    """A git repository with all files of a folder; its commit."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init"], ["add", "."], [*identity, "commit", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)
    told = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return told.stdout[:12]


def test_the_commit_is_that_of_this_package_and_of_no_project_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> str | None:
        return environment.describe(torch.device("cpu"))["commit"]

    package = tmp_path / "dhm"
    (package / "records").mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(package / "records" / "environment.py"))
    monkeypatch.chdir(tmp_path)
    assert told() is None
    repository(tmp_path)
    (package / "__init__.py").touch()  # installed into a project, say into its .venv
    assert told() is None
    commit = repository(tmp_path)
    assert told() == commit
    (package / "changed.py").touch()
    assert told() == f"{commit}+"
