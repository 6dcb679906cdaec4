"""What training programs ask a network for by name, timm's above all, asked of an attached one."""

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from dhm.attach.tails import Tail


def _through(name: str) -> Any:
    """An attribute that the backbone is asked for; where it has none, there is none."""

    def get(net: Any) -> Any:
        return getattr(net.backbone, name)

    def put(net: Any, value: Any) -> None:
        setattr(net.backbone, name, value)

    return property(get, put)


class Shown:
    """Attributes of the backbone that show through; names of parameters get the prefixes they have here.

    A branch grown from the network holds its modules by the same names, so what is said of a parameter holds there too.
    """

    backbone: nn.Module
    branches: nn.ModuleDict

    pretrained_cfg = _through("pretrained_cfg")
    default_cfg = _through("default_cfg")
    num_classes = _through("num_classes")
    num_features = _through("num_features")
    get_classifier = _through("get_classifier")
    set_grad_checkpointing = _through("set_grad_checkpointing")

    @property
    def no_weight_decay(self) -> Callable[[], set[str]]:
        own: Callable[[], set[str]] = self.backbone.no_weight_decay  # type: ignore[assignment]
        copies = [
            "backbone",
            *(f"branches.{name}.net" for name, branch in self.branches.items() if isinstance(branch, Tail)),
        ]
        return lambda: {f"{copy}.{name}" for copy in copies for name in own()}

    @property
    def group_matcher(self) -> Callable[..., Any]:
        own: Callable[..., Any] = self.backbone.group_matcher  # type: ignore[assignment]
        return lambda coarse=False: _anywhere(own(coarse=coarse))


_COPY = r"(?:backbone|branches\.\w+\.net)\."


def _anywhere(matcher: Any) -> Any:
    """timm's matcher of names to groups, for names in the network and its copies.

    It is a function of a name; or groups with an expression that a name begins with, or several, each with a suffix.
    """
    if callable(matcher):
        return lambda name: matcher(re.sub(f"^{_COPY}", "", name))
    return {group: spec if spec is None else _prefixed(spec) for group, spec in matcher.items()}


def _prefixed(spec: Any) -> Any:
    if isinstance(spec, list | tuple):
        return [(_prefixed(expression), suffix) for expression, suffix in spec]
    bare = re.sub(r"(?<![\\\[])\^", "", spec)  # names are matched from their start, so it says nothing
    return f"{_COPY}(?:{bare})"
