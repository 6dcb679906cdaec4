"""Every network of the paper by name: the specs of Tables 6-10, and families of any size."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dhm.branches import MAIN, BranchedNet, BranchSpec, Plan, designed_branches, twin
from dhm.config import Config
from dhm.errors import InputError
from dhm.models import Blueprint, CifarResNet, DenseNet, ImageNetResNet, MobileNet, WideResNet

FAMILIES: dict[str, type[Blueprint]] = {
    "cifar_resnet": CifarResNet, "wrn": WideResNet, "densenet": DenseNet, "imagenet_resnet": ImageNetResNet,
    "mobilenet": MobileNet,
}  # fmt: skip
"""Families whose members are made by their parameters, e.g. `create_model("wrn", depth=10, width=2)`."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network the paper names: its family, the family's parameters, its branches and their source."""

    family: str
    options: Mapping[str, Any]
    branches: tuple[BranchSpec, ...]
    source: str


def _three_stages(b1: int, b2: tuple[int, int], width: float) -> tuple[BranchSpec, ...]:
    """Branches of a CIFAR network: blocks of B1's conv4_x, `width` times as wide, and of B2's conv3_x and conv4_x."""
    return BranchSpec("B1", 2, (b1,), width), BranchSpec("B2", 1, b2)


def _four_stages(b1: int, b2: tuple[int, int]) -> tuple[BranchSpec, ...]:
    """Branches of an ImageNet network: blocks of B1's conv5_x, twice as wide, and of B2's conv4_x and conv5_x."""
    return BranchSpec("B1", 3, (b1,), 2), BranchSpec("B2", 2, b2)


MODELS: dict[str, Entry] = {
    "resnet32": Entry("cifar_resnet", {"depth": 32}, _three_stages(5, (5, 3), 2), "Table 6"),
    "resnet110": Entry("cifar_resnet", {"depth": 110}, _three_stages(18, (9, 9), 2), "Table 6"),
    "resnet1202": Entry("cifar_resnet", {"depth": 1202}, _three_stages(200, (100, 100), 2), "Table 6"),
    "densenet40_12": Entry("densenet", {"depth": 40, "growth": 12}, _three_stages(12, (12, 6), 3), "Table 7"),
    "densenet100_12": Entry("densenet", {"depth": 100, "growth": 12}, _three_stages(32, (16, 16), 3), "Table 7"),
    "densenetbc100_12": Entry(
        "densenet", {"depth": 100, "growth": 12, "bottleneck": True}, _three_stages(32, (16, 16), 3), "released program"
    ),
    "wrn16_8": Entry("wrn", {"depth": 16, "width": 8}, _three_stages(2, (2, 1), 2), "Table 8"),
    "wrn28_10": Entry("wrn", {"depth": 28, "width": 10}, _three_stages(4, (4, 2), 2), "Table 8"),
    "resnet18": Entry("imagenet_resnet", {"depth": 18}, _four_stages(2, (1, 2)), "Table 9"),
    "resnet34": Entry("imagenet_resnet", {"depth": 34}, _four_stages(3, (3, 2)), "released program"),
    "resnet50": Entry("imagenet_resnet", {"depth": 50}, _four_stages(3, (3, 2)), "Table 9"),
    "resnet101": Entry("imagenet_resnet", {"depth": 101}, _four_stages(3, (12, 2)), "Table 9"),
    "resnet152": Entry("imagenet_resnet", {"depth": 152}, _four_stages(3, (18, 2)), "Table 9"),
    "mobilenet_v1": Entry(
        "mobilenet", {}, (BranchSpec("B1", 4, (2,), 2), BranchSpec("B2", 3, (4, 2))), "Table 10, mended"
    ),
}

EXTRA_BRANCHES: dict[str, tuple[BranchSpec, ...]] = {
    "resnet18": (BranchSpec("B3", 1, (1, 1, 2)),),  # the second column of Table 9, headed B2
    "imagenet_resnet": (BranchSpec("B3", 1, (1, 1, 1)),),  # the same for its smallest member
}
"""Branches beside the usual ones that Table 4 asks for."""


def list_models() -> list[str]:
    """Names `create_model` knows: the paper's networks. Other members of a family go by `FAMILIES`."""
    return list(MODELS)


def family_of(name: str) -> str:
    """The family a network or family name belongs to."""
    return MODELS[name].family if name in MODELS else name


def blueprint(name: str, **options: Any) -> Blueprint:
    """The blueprint behind a name of `list_models()` or of `FAMILIES`, with the family's parameters as options."""
    if name in MODELS:
        options = {**MODELS[name].options, **options}
    elif name not in FAMILIES:
        raise InputError(
            f"there is no network {name!r}; take one of {', '.join(MODELS)}, "
            f"or a family with its parameters: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[family_of(name)]
    known = {field.name: field for field in dataclasses.fields(family) if field.name != "num_classes"}
    for option, value in options.items():
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; it takes {', '.join(known)}")
        _check_type(name, option, value, known[option].type)
    return family(**options)


def _check_type(name: str, option: str, value: Any, kind: Any) -> None:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        wanted = getattr(kind, "__name__", str(kind))
        raise InputError(f"{name}: option {option} must be of type {wanted}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name}: option {option} must be a finite number, not {value!r}")


def branches_of(name: str, plan: Blueprint, branches: str | Sequence[BranchSpec]) -> tuple[BranchSpec, ...]:
    """What `branches` means for a network: "paper", "none", "twin" or the specs themselves."""
    if isinstance(branches, list | tuple) and all(isinstance(spec, BranchSpec) for spec in branches):
        return tuple(branches)
    if branches == "none":
        return ()
    if branches == "paper":
        return MODELS[name].branches if name in MODELS else designed_branches(plan)
    if branches == "twin":
        return (twin(plan),)
    raise InputError(f'branches must be "paper", "none", "twin" or a list of BranchSpec, not {branches!r}')


def create_model(
    name: str, num_classes: int = 100, branches: str | Sequence[BranchSpec] = "paper", **options: Any
) -> BranchedNet:
    """A network of the paper, or any member of its families, with side branches.

    Args:
        name: one of `list_models()`, or a family: "cifar_resnet", "wrn", "densenet", "imagenet_resnet", "mobilenet".
        num_classes: outputs of every classifier.
        branches: "paper" for the specs of Tables 6-10 (by the design principles where no table prints the
            network), "none" for the plain network, "twin" for a second network of the same architecture that shares
            nothing with the first (`dhm.branches.twin`), or a list of `BranchSpec`.
        **options: the family's parameters, e.g. `depth=20`, `dropout=0.3`.

    Raises:
        InputError: an unknown name or option, or a value the family cannot be built with.
    """
    plan = blueprint(name, **options)
    return Plan(plan, branches_of(name, plan, branches)).build(num_classes)


def plan_of(config: Config) -> Plan:
    """The network a run trains: for the baseline without any branch, an isolated branch as a network of its own.

    Raises:
        InputError: as `create_model`.
    """
    branches: Any = config.branches
    if not isinstance(branches, str):
        branches = [_spec(values) for values in branches]
    if config.method == "baseline" and config.isolated == MAIN:
        branches = "none"
    backbone = blueprint(config.arch, **config.options)
    return Plan(backbone, branches_of(config.arch, backbone, branches), config.isolated)


def network_of(config: Config, num_classes: int = 100) -> BranchedNet:
    """The network a run trains, freshly initialised; see `plan_of`."""
    return plan_of(config).build(num_classes)


def _spec(values: Mapping[str, Any]) -> BranchSpec:
    try:
        return BranchSpec(**values)
    except TypeError:
        raise InputError(f"a branch is given by name, root, depths and width, not by {dict(values)}") from None
