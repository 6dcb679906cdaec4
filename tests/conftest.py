"""What several tests share: small configurations, records and folders, and the reference facts where they are there."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dhm import Config, RunRecord


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="many more kills, flipped bits and drawn examples")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long version of a test is asked for."""
    return request.config.getoption("--long")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases the tests tried within them, as they told by `record_property`."""
    tried: Counter = Counter()
    for report in terminalreporter.stats.get("", []):
        if report.when == "teardown":
            tried.update(dict(report.user_properties))
    for what, number in tried.items():
        terminalreporter.write_line(f"{number} {what}")


SHARED = Path(__file__).resolve().parents[2] / "shared"


def small_config(**changes) -> Config:
    """A run of less than a second: ResNet-8 on 320 images of 8 x 8, ten steps an epoch."""
    settings = {
        "arch": "cifar_resnet", "options": {"depth": 8}, "image_size": 8, "classes": 5, "train_per_class": 64,
        "epochs": 3, "milestones": (2,), "batch_size": 32,
    }  # fmt: skip
    return Config.from_dict({**settings, **changes})


def write_run(folder: Path, config: Config, error: float) -> Path:
    """A finished record with this top-1 error, written as a training leaves it."""
    record = RunRecord.of(config, folder)
    record.create()
    heads = {"B0": {"top1_error": error, "top5_error": error / 3, "nll": 1.0, "ece": 0.1}}
    line = {"epoch": config.epochs - 1, "lr": 0.1, "train": {"loss": 1.0, "accuracy/B0": 0.9}, "test": heads,
            "seconds": {"train": 1.0, "test": 1.0}, "unreadable": 0}  # fmt: skip
    record.write_metrics([line])
    place = {"epoch": config.epochs - 1, "heads": heads}
    record.write_json("result.json", {"last": place, "best": place, "seconds": 1.0})
    return record.folder


def write_image(file: Path, seed: int, size: tuple[int, int] = (40, 36)) -> None:
    """A JPEG of noise; its size is (width, height)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, quality=90)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 7 training and 2 validation images."""
    for label, name in enumerate(("n01", "n02", "n03")):
        for i in range(7):
            write_image(tmp_path / "train" / name / f"{i}.JPEG", 10 * label + i)
        for i in range(2):
            write_image(tmp_path / "val" / name / f"v{label}{i}.JPEG", 100 + 10 * label + i)
    return tmp_path


@pytest.fixture(scope="session")
def reference() -> dict:
    """Facts measured from the released program."""
    file = SHARED / "reference" / "released_checkpoints.json"
    if not file.is_file():
        pytest.skip("the reference facts are not beside this clone")
    return json.loads(file.read_text())
