"""Plain weights in place of those that a network makes anew in every pass.

Pruning, weight and spectral normalisation of `torch.nn.utils` make a module's weight of other tensors, by a hook that
runs before the module or by a parametrization of its class. A branch is of other widths, so it takes the weights as
they come out.
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize


def makers(part: nn.Module) -> list[str]:
    """Names of what makes a module's own weights."""
    if parametrize.is_parametrized(part):
        return [type(step).__name__.strip("_") for steps in part.parametrizations.values() for step in steps]  # type: ignore[union-attr, operator]
    if _made(part):
        return [getattr(hook, "__name__", type(hook).__name__) for hook in part._forward_pre_hooks.values()]
    return []


def settle(net: nn.Module) -> None:
    """Let every weight that is made anew in a pass be a parameter with the value it has."""
    for part in list(net.modules()):
        if parametrize.is_parametrized(part):
            _settle_parametrized(part)
        elif made := _made(part):
            _settle_hooked(part, made)


def own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, as they would be if the network were settled; it stays as it is."""
    tensors: dict[str, torch.Tensor] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        if makers(part):
            part = copy.deepcopy(part, copied_values(part)).eval()
            settle(part)
        own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        tensors |= {f"{name}.{key}" if name else key: tensor for key, tensor in own}
    return tensors


def copied_values(module: nn.Module) -> dict[int, Any]:
    """A memo for `copy.deepcopy`, of the tensors a module keeps that torch refuses to copy: results of a pass."""
    kept = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    return {id(tensor): tensor.detach().clone() for tensor in kept if tensor.grad_fn is not None}


def _made(part: nn.Module) -> list[str]:
    """Names of the weights that a hook puts beside a module's parameters before it runs."""
    return [
        name
        for name in ("weight", "bias")
        if part._forward_pre_hooks and isinstance(vars(part).get(name), torch.Tensor)
    ]


def _settle_parametrized(part: nn.Module) -> None:
    # `remove_parametrizations` would take the properties off a class that copies of a module share with it
    names = list(part.parametrizations)  # type: ignore[arg-type]
    with torch.no_grad():
        values = {name: getattr(part, name).clone() for name in names}
    mixed = next(kind for kind in type(part).__mro__ if isinstance(vars(kind).get(names[0]), property))
    part.__class__ = mixed.__bases__[0]
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _settle_hooked(part: nn.Module, made: list[str]) -> None:
    for hook in part._forward_pre_hooks.values():
        if hasattr(hook, "remove"):  # torch's own put the weight that holds now in its place, and its sources away
            hook.remove(part)
    for hooks in (part._forward_pre_hooks, part._state_dict_hooks, part._load_state_dict_pre_hooks):
        hooks.clear()
    for name in made:
        value = vars(part).pop(name) if name in vars(part) else getattr(part, name)
        part._parameters.pop(name, None)
        part.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
