"""What several tests share: small configurations, and the reference facts where they are there."""

import json
from pathlib import Path

import pytest

from dhm import Config

SHARED = Path(__file__).resolve().parents[2] / "shared"


def small_config(**changes) -> Config:
    """A run of a second: ResNet-8 on 640 images of 8 x 8."""
    settings = {
        "arch": "cifar_resnet", "options": {"depth": 8}, "image_size": 8, "train_per_class": 64, "epochs": 3,
        "milestones": (2,), "batch_size": 64,
    }  # fmt: skip
    return Config.from_dict({**settings, **changes})


@pytest.fixture(scope="session")
def reference() -> dict:
    """Facts measured from the released program."""
    file = SHARED / "reference" / "released_checkpoints.json"
    if not file.is_file():
        pytest.skip("the reference facts are not beside this clone")
    return json.loads(file.read_text())
