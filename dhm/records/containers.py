"""A network's tensors in what a program saved around them."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from dhm.errors import InputError
from dhm.records import checkpoints

_TRAINED = ("state_dict", "model", "model_state_dict", "net", "network", "module", "weights", "params")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
_NEVER_NAMES = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
"""What torch.compile, FSDP, checkpointed activations and Fabric put into a name, wherever they wrap a module."""
_WRAPPERS = {"module", "model", "net", "network"}
"""Names under which DDP, torch's AveragedModel, timm's EMA and most Lightning modules hold the network."""
_LIGHTNING = "pytorch-lightning_version"


Content = Mapping[str, Any] | str | os.PathLike
"""What a program saved: its file, or what `torch.load` makes of it."""


def plain_state(content: Content, ema: bool = False) -> dict[str, torch.Tensor]:
    """The plain network's tensors under its own names, from what any program saved.

    Understood are a bare state dict and one among other things, as timm, torchvision's references, Lightning and most
    training programs write it; the prefixes of DDP, FSDP, torch.compile, Lightning and averaged models, nested too; and
    branched networks of this project, of which the plain one is given: `net.load_state_dict(dhm.plain_state(file))`.

    Args:
        content: a file, read without running code; or what `torch.load` gives, or a state dict.
        ema: take the averaged weights where a file holds both; by default the trained ones.

    Raises:
        InputError: it cannot be read, or holds no state dict, or several and none by a name that tells.
    """
    state = unwrapped(content, ema)
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    branched = own and all(key.startswith(("backbone.", "branches.")) for key in state)
    return own if branched else state


def unwrapped(content: Content, ema: bool = False) -> dict[str, torch.Tensor]:
    """As `plain_state`, with the branches of a branched network."""
    name = "the checkpoint" if isinstance(content, Mapping) else str(content)
    content = content if isinstance(content, Mapping) else checkpoints.load(content)
    found = _states(content, (*_AVERAGED, *_TRAINED) if ema else (*_TRAINED, *_AVERAGED))
    if len(found) != 1:
        several = f", but several sets of tensors ({', '.join(found)})" if found else ""
        raise InputError(f"{name} holds no state dict of a network{several}")
    state = {
        ".".join(part for part in key.split(".") if part not in _NEVER_NAMES): value
        for key, value in next(iter(found.values())).items()
    }
    if _LIGHTNING in content:
        state = _of_lightning(state)
    while (inner := _inside(state)) is not None:
        state = inner
    return state


def _states(content: Any, order: tuple[str, ...]) -> dict[str, dict[str, torch.Tensor]]:
    """State dicts by the name they have in their container; one, if names tell which is the network's."""
    if not isinstance(content, Mapping):
        return {}
    items = {key: value for key, value in content.items() if isinstance(key, str) and not key.endswith("_extra_state")}
    if items and all(isinstance(value, torch.Tensor) for value in items.values()):
        return {"": items}
    inside = {
        key: next(iter(found.values())) for key, value in items.items() if len(found := _states(value, order)) == 1
    }
    known = next((key for key in order if key in inside), None)
    return inside if known is None else {known: inside[known]}


def _inside(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The tensors under a wrapper's prefix that all of them have; None if there is none."""
    kept = {key: value for key, value in state.items() if key != "n_averaged"}  # the count of torch's AveragedModel
    first = {key.partition(".")[0] for key in kept}
    if len(first) != 1 or not first <= _WRAPPERS or not all("." in key for key in kept):
        return None
    return {key.partition(".")[2]: value for key, value in kept.items()}


def _of_lightning(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The network of a LightningModule: its only attribute with tensors, or that by a wrapper's name, beside criterion
    and metrics."""
    first = {key.partition(".")[0] for key in state}
    held = first if len(first) == 1 else first & _WRAPPERS
    if len(held) != 1:
        return state
    prefix = f"{held.pop()}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)} or state
