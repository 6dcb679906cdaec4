"""Dynamic Hierarchical Mimicking (Li & Chen, CVPR 2020): networks with side branches, the loss, the training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dhm.attach import AttachedNet, attach
from dhm.branches import BranchedNet, BranchSpec
from dhm.config import Config
from dhm.errors import InputError
from dhm.losses import DHMLoss
from dhm.records.containers import plain_state
from dhm.records.record import RunRecord
from dhm.records.store import load_runs
from dhm.records.weights import load_released, load_trained
from dhm.zoo import create_model, list_models

if TYPE_CHECKING:
    from dhm.training.loop import fit
    from dhm.training.warm_up import warm_up_branches

__version__ = "0.1.0"
__all__ = [
    "AttachedNet", "BranchSpec", "BranchedNet", "Config", "DHMLoss", "InputError", "RunRecord", "attach",
    "create_model", "fit", "list_models", "load_released", "load_runs", "load_trained",
    "plain_state", "warm_up_branches",
]  # fmt: skip
_WHEN_ASKED = {"fit": "dhm.training.loop", "warm_up_branches": "dhm.training.warm_up"}
"""What brings Fabric and the readers of data sets with it, which a network and a loss do not need."""


def __getattr__(name: str) -> Any:
    if name not in _WHEN_ASKED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHEN_ASKED[name]), name)
