"""What the loss is given: its settings, logits and targets, each seen to be one it can use."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch

from dhm.config import DIRECTIONS, METHODS
from dhm.errors import InputError


def setting(name: str, value: Any) -> Any:
    """A setting of the loss as it is kept.

    Raises:
        InputError: a value it cannot have; the sentence names it.
    """
    choices = {"method": METHODS, "direction": DIRECTIONS}.get(name)
    if choices is not None:
        if value not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    elif name == "temperature":
        if not (_is_number(value) and value > 0):
            raise InputError(f"temperature must be positive, not {value!r}")
        return float(value)
    elif name == "label_smoothing":
        if not (_is_number(value) and 0 <= value < 1):
            raise InputError(f"label_smoothing must be in [0, 1), not {value!r}")
    elif name == "mimic_scale":
        if not _is_number(value):
            raise InputError(f"mimic_scale must be a finite number, not {value!r}")
        return value if isinstance(value, torch.Tensor) else float(value)
    elif name in ("ce_weights", "mimic_weights"):
        if value is not None and not (isinstance(value, Mapping) and all(map(_is_number, value.values()))):
            raise InputError(f"{name} must be finite numbers by name, not {value!r}")
        return dict(value or {})
    elif name == "task_loss" and not (value is None or callable(value)):
        raise InputError(f"task_loss must be a function of logits and target, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, or a tensor of one, whose value is not waited for."""
    if isinstance(value, torch.Tensor):
        return value.dim() == 0
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_forms(logits: Mapping[str, torch.Tensor], heads: Sequence[str], target: torch.Tensor | None) -> None:
    """See that all classifiers answer in one shape and that the target fits it, if it is given.

    Raises:
        InputError: one does not; the sentence names it with its shape.
    """
    for head in heads:
        if not isinstance(logits.get(head), torch.Tensor):
            given = type(logits[head]).__name__ if head in logits else "missing"
            raise InputError(f"logits must hold a tensor for every classifier, but {head}'s is {given}")
    first, shape = heads[0], tuple(logits[heads[0]].shape)
    if len(shape) < 2:
        raise InputError(f"logits must be (N, K) or (N, K, ...), but {first}'s are {shape}")
    for head in heads:
        other = tuple(logits[head].shape)
        if other != shape:
            raise InputError(f"all classifiers must answer in one shape, but {first}'s is {shape}, {head}'s {other}")
    if target is None:
        return
    wanted = shape if target.is_floating_point() else (shape[0], *shape[2:])
    if tuple(target.shape) != wanted:
        what = "probabilities" if target.is_floating_point() else "class indices"
        raise InputError(f"a target of {what} must be {wanted} for logits {shape}, not {tuple(target.shape)}")
