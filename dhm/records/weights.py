"""Networks from files: released checkpoints, pre-trained weights, what a run left behind."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

from dhm.branches import BranchedNet
from dhm.errors import InputError
from dhm.records import checkpoints
from dhm.records.containers import plain_state, unwrapped
from dhm.records.record import RunRecord
from dhm.zoo import MODELS, create_model, network_of

_RELEASED_HEAD = re.compile(r"^(\w+?)_head(\d)\.")
_RELEASED_DENSE_LAYER = re.compile(r"(\blayer\d+\.\d+\.)(bn|conv)\.")
"""A dense layer without bottleneck, which counts its modules here as one with bottleneck does."""


def our_name(released: str) -> str:
    """`module.layer3_head1.0.conv.weight` -> `branches.B1.layer3.0.conv1.weight`; the rest is the backbone's."""
    name = released.removeprefix("module.")
    placed = _RELEASED_HEAD.sub(r"branches.B\2.\1.", name)
    return _RELEASED_DENSE_LAYER.sub(r"\1\g<2>1.", placed if placed != name else f"backbone.{name}")


def released_name(path: str | Path) -> str:
    """The name in `list_models()` of the network a released file holds, recognised from its tensors.

    Raises:
        InputError: the file is no checkpoint, or of none of these networks.
    """
    return _recognise(_released_state(path), path)


def torchvision_label(path: str | Path) -> str:
    """The label of a file that is just torchvision's, by the hash torchvision gives: "torchvision IMAGENET1K_V1
    (baseline)"; for any other an empty string."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    for address in filter(None, map(_torchvision_address, MODELS)):
        if digest.startswith(address.rpartition("-")[2].removesuffix(".pth")):
            return "torchvision IMAGENET1K_V1 (baseline)"
    return ""


def _torchvision_address(name: str) -> str:
    """Of torchvision's first weights of a network, by He et al.'s recipe; an empty string where it has none."""
    if name not in MODELS or name not in torchvision.models.list_models():
        return ""
    return torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url


def load_released(path: str | Path, name: str = "", **options: Any) -> BranchedNet:
    """A checkpoint of the released program as a network with branches B1 and B2.

    A file without branches, as torchvision's weights are, gives the plain network.

    Args:
        path: a bare state dict or the program's {epoch, arch, state_dict, ...}, or what other programs write, see
            `dhm.plain_state`; with pickle or as safetensors.
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
    """The tensors of a file under our names, with those of a classifier."""
    state = _state(path)
    if "backbone.fc.weight" not in state or state["backbone.fc.weight"].ndim != 2:
        raise InputError(f"{path} has no classifier named fc, so it is not a checkpoint of the released program")
    return state


def _state(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of any program's file under our names."""
    state = unwrapped(path)
    ours = any(key.startswith("backbone.") for key in state)  # what a run of this program left
    return state if ours else {our_name(key): value for key, value in state.items()}


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
        InputError: the file is not there or holds no tensors, or torchvision has none for the network.
    """
    file = Path(weights).expanduser()
    if weights == "imagenet":
        address = _torchvision_address(arch)
        if not address:
            raise InputError(f"torchvision has no ImageNet weights for {arch}; give the file that holds them")
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
    state = _state(file)
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
    found = checkpoints.load(file).get("net")
    state = found if isinstance(found, Mapping) else {}
    classifier = state.get("backbone.fc.weight")
    if not isinstance(classifier, torch.Tensor) or classifier.ndim != 2:
        raise InputError(f"{file} is no checkpoint of a run")
    net = network_of(record.config, len(classifier))
    checkpoints.load_into(net, state, file, record.config.network)
    return net.eval()


def export(file: Path, to: Path, ema: bool = False, overwrite: bool = False) -> dict[str, torch.Tensor]:
    """Write the plain network's tensors of any program's file into one of their own, and give them.

    Args:
        file: see `dhm.plain_state`.
        to: a name that ends in .safetensors; by any other it is a state dict as `torch.save` writes it.
        ema: take the averaged weights where the file holds both.
        overwrite: whether a file that is there may go.

    Raises:
        InputError: the file cannot be read or holds no network, or the other cannot be written or is there.
    """
    state = plain_state(file, ema)
    if to.exists() and not overwrite:
        raise InputError(f"{to} is there already; give another name, or --overwrite")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from None
    checkpoints.save(to, state)
    return state
