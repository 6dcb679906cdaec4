"""Which of its tensors a network's answer is computed from."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Dependence(TorchDispatchMode):
    """Follows tensors through all operations inside it, by the memory they live in, so views and changes in place too.

    Args:
        sources: tensors by name.
    """

    def __init__(self, sources: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.behind: dict[int, set[str]] = {}
        for name, tensor in sources.items():
            self.behind.setdefault(_memory(tensor), set()).add(name)
        self.alive: list[torch.Tensor] = []  # memory that is given back would be given out again

    def of(self, tensor: torch.Tensor) -> set[str]:
        """Names of the sources a tensor was computed from."""
        return self.behind.get(_memory(tensor), set())

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = operation(*args, **(kwargs or {}))
        found: set[str] = set().union(*(self.of(tensor) for tensor in _tensors((args, kwargs))))
        for tensor in _tensors(output):
            self.behind[_memory(tensor)] = self.of(tensor) | found
            self.alive.append(tensor)
        return output


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
