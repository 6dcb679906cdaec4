"""Every network of the paper by name: the specs of Tables 6-10, families of any size, released checkpoints."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision

from dhm import checkpoints
from dhm.branches import MAIN, BranchedNet, BranchSpec, branch_out, designed_branches, isolate, twin
from dhm.config import Config
from dhm.errors import InputError
from dhm.models import Blueprint, CifarResNet, DenseNet, ImageNetResNet, MobileNet, WideResNet
from dhm.runs import RunRecord

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


def blueprint(name: str, num_classes: int = 100, **options: Any) -> Blueprint:
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
    return family(num_classes=num_classes, **options)


def _check_type(name: str, option: str, value: Any, kind: Any) -> None:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        wanted = getattr(kind, "__name__", str(kind))
        raise InputError(f"{name}: option {option} must be of type {wanted}, not {value!r}")


def branches_of(name: str, plan: Blueprint, branches: str | Sequence[BranchSpec]) -> list[BranchSpec]:
    """What `branches` means for a network: "paper", "none", "twin" or the specs themselves."""
    if not isinstance(branches, str):
        return list(branches)
    if branches == "none":
        return []
    if branches == "paper":
        return list(MODELS[name].branches) if name in MODELS else designed_branches(plan)
    if branches == "twin":
        return [twin(plan)]
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
    plan = blueprint(name, num_classes, **options)
    return branch_out(plan, branches_of(name, plan, branches))


def network_of(config: Config, num_classes: int = 100) -> BranchedNet:
    """The network a run trains, freshly initialised: for the baseline without any branch.

    An isolated branch is the main branch of a network of its own.
    """
    branches: Any = config.branches
    if not isinstance(branches, str):
        branches = [_spec(values) for values in branches]
    if config.isolated != MAIN:
        plan = blueprint(config.arch, num_classes, **config.options)
        return isolate(plan, branches_of(config.arch, plan, branches), config.isolated)
    if config.method == "baseline":
        branches = "none"
    return create_model(config.arch, num_classes, branches, **config.options)


def _spec(values: Mapping[str, Any]) -> BranchSpec:
    try:
        return BranchSpec(**values)
    except TypeError:
        raise InputError(f"a branch is given by name, root, depths and width, not by {dict(values)}") from None


_RELEASED_HEAD = re.compile(r"^(\w+?)_head(\d)\.")


def _our_name(released: str) -> str:
    """`module.layer3_head1.0.conv1.weight` -> `branches.B1.layer3.0.conv1.weight`; the rest is the backbone's."""
    name = released.removeprefix("module.")
    renamed = _RELEASED_HEAD.sub(r"branches.B\2.\1.", name)
    return renamed if renamed != name else f"backbone.{name}"


def released_name(path: str | Path) -> str:
    """The name in `list_models()` of the network a released file holds, recognised from its tensors.

    Raises:
        InputError: the file is no checkpoint, or of none of these networks.
    """
    return _recognise(_released_state(path), path)


def torchvision_label(path: str | Path) -> str:
    """ "torchvision IMAGENET1K_V1", if a file is just that, by the hash torchvision gives; else an empty string."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    for name in MODELS:
        weights = getattr(torchvision.models, f"{name.replace('resnet', 'ResNet')}_Weights", None)
        if weights and digest.startswith(weights.IMAGENET1K_V1.url.rpartition("-")[2].removesuffix(".pth")):
            return "torchvision IMAGENET1K_V1 (baseline)"
    return ""


def load_released(path: str | Path, name: str = "", **options: Any) -> BranchedNet:
    """A checkpoint of the released program as a network with branches B1 and B2.

    A file without branches, as torchvision's weights are, gives the plain network.

    Args:
        path: a bare state dict or the program's {epoch, arch, state_dict, ...}, names with or without `module.`.
        name: the network it was trained as, e.g. "resnet32"; by default recognised from the file's tensors. The
            number of classes is read from the file.

    Raises:
        InputError: the file is not a checkpoint, or one of another network.
    """
    state = _released_state(path)
    branches = "paper" if any(key.startswith("branches.") for key in state) else "none"
    name = name or _recognise(state, path)
    net = create_model(name, len(state["backbone.fc.weight"]), branches, **options)
    for key, value in net.state_dict().items():
        if key.endswith("num_batches_tracked"):  # a counter no answer depends on; older files lack it
            state.setdefault(key, value)
    checkpoints.load_into(net, state, path, name)
    return net


def _released_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a released file under our names."""
    content = checkpoints.load(path)
    state = content.get("state_dict", content)
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict of the released program")
    state = {_our_name(key): value for key, value in state.items()}
    if "backbone.fc.weight" not in state:
        raise InputError(f"{path} has no classifier named fc, so it is not a checkpoint of the released program")
    return state


def _recognise(state: Mapping[str, torch.Tensor], path: str | Path) -> str:
    """The name in `MODELS` whose backbone has the weights of a state dict, by name and shape."""
    weights = {key: value.shape for key, value in state.items() if key.startswith("backbone.") and value.ndim > 1}
    with torch.device("meta"):
        for name in reversed(MODELS):  # resnet1202, which takes seconds to build, comes late
            net = create_model(name, len(state["backbone.fc.weight"]), "none")
            if {key: value.shape for key, value in net.state_dict().items() if value.ndim > 1} == weights:
                return name
    raise InputError(f"{path} is a checkpoint of none of {', '.join(MODELS)}; give the network's name and options")


def pretrained(arch: str, weights: str, download: bool = False) -> tuple[dict[str, torch.Tensor], Path]:
    """The tensors of a plain network's file but for its classifier, and the file.

    Args:
        weights: "imagenet" for torchvision's weights of this name (the first ones, of He et al.'s recipe) from its
            cache, or a file: torchvision's, or a checkpoint of the released program.
        download: fetch torchvision's file if it is not in the cache.

    Raises:
        InputError: the file is not there, or torchvision has none for the network.
    """
    file = Path(weights).expanduser()
    if weights == "imagenet":
        from torchvision.models import get_model_weights, list_models

        if arch not in list_models() or arch not in MODELS:
            raise InputError(f"torchvision has no ImageNet weights for {arch}; give the file that holds them")
        address = get_model_weights(arch)["IMAGENET1K_V1"].url
        file = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
        if download and not file.is_file():
            try:
                torch.hub.load_state_dict_from_url(address, map_location="cpu", weights_only=True)
            except OSError as error:
                raise InputError(f"torchvision's weights of {arch} could not be downloaded: {error}") from None
        if not file.is_file():
            raise InputError(
                f"torchvision's weights of {arch} are not in its cache: put {file.name} into {file.parent}, give a "
                "file's path as weights, or ask for the download (--download, or download = True in a notebook)"
            )
    content = checkpoints.load(file)
    state = {_our_name(name): value for name, value in content.get("state_dict", content).items()}
    own = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    return {name: value for name, value in own.items() if not name.startswith("fc.")}, file


def start_from(net: BranchedNet, state: Mapping[str, torch.Tensor], file: Path, name: str) -> None:
    """Put pre-trained tensors into B0, whose classifier stays as it is, drawn anew like the branches.

    Raises:
        InputError: they are another network's.
    """
    own = net.backbone.state_dict()
    kept = {key: value for key, value in own.items() if key.startswith("fc.") or key.endswith("num_batches_tracked")}
    checkpoints.load_into(net.backbone, {**kept, **state}, file, name)


def load_trained(record: RunRecord, which: str = "last") -> BranchedNet:
    """The network of a run after its "last" or its "best" epoch, in eval mode.

    Raises:
        InputError: the record holds no such checkpoint (committed records hold none).
    """
    file = record.folder / f"{which}.pt"
    state = checkpoints.load(file).get("net")
    if not state or "backbone.fc.weight" not in state:
        raise InputError(f"{file} is no checkpoint of a run")
    net = network_of(record.config, len(state["backbone.fc.weight"]))
    checkpoints.load_into(net, state, file, record.config.network)
    return net.eval()
