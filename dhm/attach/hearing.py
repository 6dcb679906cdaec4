"""Roots that are listened to: what they put out in a training pass goes to the branches too."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

_NOBODY: Sequence[tuple[dict[str, torch.Tensor], str]] = ()


class Heard(nn.Module):
    """Mixed into the class of a root for good: while it has ears, a call leaves each of them a copy of its output.

    A class and no hook: compiled code is used for every module of a class it was compiled for, whatever its hooks; and
    a class that stays, so that a pass is compiled whole. Copies and files of a root are of its own class.
    """

    ears = _NOBODY  # not annotated, for TorchScript's sake

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = super().__call__(*args, **kwargs)
        if isinstance(output, torch.Tensor):
            for inner, name in self.ears:
                inner[name] = output.clone()
        return output

    def __reduce_ex__(self, protocol: Any) -> Any:
        heard = type(self)
        if heard not in _OWN:  # another library mixed a class of its own into this one
            return super().__reduce_ex__(protocol)
        self.__class__ = _OWN[heard]  # type: ignore[assignment]
        try:  # by protocol 1; from 2 on what is pickled has to be of the class that is named
            build, given, state, *more = self.__reduce_ex__(1)
        finally:
            self.__class__ = heard
        return build, given, {name: value for name, value in state.items() if name != "ears"}, *more


_HEARD: dict[type[nn.Module], type[nn.Module]] = {}
_OWN: dict[type[nn.Module], type[nn.Module]] = {}
"""A class that is heard for every class, always the same since compiled code depends on it; and the way back."""


def let_be_heard(root: nn.Module) -> Heard:
    """The same module, as one that is heard."""
    if not isinstance(root, Heard):
        kind = type(root)
        if kind not in _HEARD:
            known = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
            _HEARD[kind] = type(kind.__name__, (Heard, kind), known)
            _OWN[_HEARD[kind]] = kind
        root.__class__ = _HEARD[kind]
    return cast(Heard, root)


@contextmanager
def heard(net: nn.Module, roots: Mapping[str, str]) -> Iterator[dict[str, torch.Tensor]]:
    """What roots put out meanwhile, by branch."""
    inner: dict[str, torch.Tensor] = {}
    modules = {root: let_be_heard(net.get_submodule(root)) for root in roots.values()}
    try:
        for root, module in modules.items():
            module.ears = [(inner, name) for name in roots if roots[name] == root]
        yield inner
    finally:
        for module in modules.values():
            module.ears = _NOBODY
