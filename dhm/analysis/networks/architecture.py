"""The architecture tables (Tables 6-10) read off the networks, and their departures from print."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import nn

from dhm import paths
from dhm.branches import MAIN, BranchedNet, answering
from dhm.errors import InputError
from dhm.flops import blank, flops, inference_flops
from dhm.models import StagedNet
from dhm.zoo import MODELS, create_model, family_of

SHORTCUTS = ("shortcut", "downsample")


def table(net: BranchedNet, image_size: int | tuple[int, int] = 32) -> pd.DataFrame:
    """The network as Tables 6-10 set it, measured on images of the given height and width: a row a layer with its
    output's height x width, a column a head (B0, then from shallow to deep).

    Layers are conv1 (the stem), conv2_x, conv3_x, ... (the stages) and the classifier. A cell names a head's blocks,
    e.g. "[3x3, 16; 3x3, 16] x 5", and is empty where the head shares the trunk.
    """
    heads: dict[str, tuple[int, StagedNet]] = {MAIN: (-1, net.backbone)}
    for name in reversed(net.roots):
        heads[name] = net.roots[name], net.branches[name]  # type: ignore[assignment]
    rows = {}
    for index, size in enumerate(_sizes(net.backbone, image_size)):
        rows[f"conv{index + 1}_x" if index else "conv1", size] = {
            name: describe(tower.parts[index - root - 1]) if index > root and tower.parts else ""
            for name, (root, tower) in heads.items()
        }
    classifiers = {name: tower.classifier.out_features for name, (_, tower) in heads.items()}
    rows["classifier", "1x1"] = {name: f"average pool, {width}-d fc" for name, width in classifiers.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["layer", "output size"])


DEPARTURE = ("network", "layer", "column", "ours", "printed")


def departures(name: str, net: BranchedNet, image_size: int | tuple[int, int]) -> list[dict[str, str]]:
    """Cells of Tables 6-9 in which a network differs from print, each with the keys of `DEPARTURE`; an empty list where
    it is the printed one.

    Raises:
        InputError: the paper prints no table of this network.
    """
    printed = pd.read_csv(paths.embedded("paper/architectures.csv"), dtype=str, keep_default_na=False)
    printed = printed[printed["network"] == name].rename(columns={"output_size": "output size"})
    if printed.empty:
        raise InputError(f"Tables 6-9 print no network {name!r}")
    ours = table(net, image_size).reset_index().to_dict("records")
    return [
        dict(zip(DEPARTURE, (name, row["layer"], column, cell, theirs[column]), strict=True))
        for row, theirs in zip(ours, printed.to_dict("records"), strict=False)
        for column, cell in row.items()
        if cell != theirs[column]
    ]


IMAGES: Mapping[str, tuple[int | tuple[int, int], int]] = {
    "imagenet_resnet": (224, 1000),
    "mobilenet": ((256, 128), 751),
}
"""Image size and classes of the paper's experiments by family; CIFAR-100's for the others."""
COMPARED = ("Table 6", "Table 7", "Table 8", "Table 9")
"""Tables of which `paper/architectures.csv` holds the cells."""


def paper_networks() -> list[str]:
    """Names of the networks that the paper prints."""
    return [name for name, entry in MODELS.items() if entry.source.startswith("Table")]


def build(names: Iterable[str]) -> dict[str, tuple[BranchedNet, int | tuple[int, int]]]:
    """Networks for the classes and image sizes of the paper's experiments, with shapes but no weights, so that the
    largest takes no memory: name -> (network, image size).

    Raises:
        InputError: as `create_model`.
    """
    used = {name: IMAGES.get(family_of(name), (32, 100)) for name in dict.fromkeys(names)}
    with torch.device("meta"):
        return {name: (create_model(name, num_classes=classes), size) for name, (size, classes) in used.items()}


def compare(names: Iterable[str]) -> tuple[int, pd.DataFrame]:
    """How many of the networks stand in Tables 6 to 9, and their `departures` from print."""
    printed = [name for name in names if MODELS[name].source in COMPARED]
    rows = [row for name, (net, size) in build(printed).items() for row in departures(name, net, size)]
    return len(printed), pd.DataFrame(rows, columns=list(DEPARTURE))


def costs(names: Iterable[str]) -> pd.DataFrame:
    """What branches cost, a row a network: parameters by owner (M), multiply-adds of one image (G), what each branch
    adds to B0's (%), training as a multiple of the plain network, and inference in eval mode beside it."""
    rows = {}
    for name, (net, size) in build(names).items():
        work = flops(net, size)
        owned = {owner: sum(p.numel() for p in group) / 1e6 for owner, group in net.parameter_groups().items()}
        rows[name] = {
            "parameters of B0 (M)": owned[MAIN], "of B1 (M)": owned["B1"], "of B2 (M)": owned["B2"],
            "multiply-adds of B0 (G)": work[MAIN] / 1e9,
            "B1 adds (%)": 100 * work["B1"] / work[MAIN], "B2 adds (%)": 100 * work["B2"] / work[MAIN],
            "training, times the plain network": sum(work.values()) / work[MAIN],
            "inference (G)": inference_flops(net, size) / 1e9, "plain network (G)": work[MAIN] / 1e9,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def cost_sentence(table: pd.DataFrame) -> str:
    """What `costs` come to at inference and in training."""
    same = int((table["inference (G)"] == table["plain network (G)"]).sum())
    factors = table["training, times the plain network"]
    return (
        f"**Inference costs exactly what the plain network costs** in {same} of {len(table)} networks. Training does "
        f"not come free: a step of DSL or DHM takes **{factors.min():.1f} to {factors.max():.1f} times** the "
        "arithmetic of the baseline's. Where the paper compares methods at equal epochs, the baseline has had that "
        "much less computation."
    )


def describe(part: nn.Module) -> str:
    """Blocks of a stage by their convolutions, e.g. "[3x3, 16; 3x3, 16] x 5"; a bare convolution as "3x3, 16".

    Shortcuts and transition layers are left out, as in the paper's tables.
    """
    kinds: Counter[str] = Counter()
    for child in part.children():
        blocks = child.children() if isinstance(child, nn.Sequential) else [child]
        for block in blocks:
            if hasattr(block, "conv") and hasattr(block, "bn"):
                continue  # a transition layer
            convolutions = [
                f"{conv.kernel_size[0]}x{conv.kernel_size[1]}{'' if conv.groups == 1 else ' dw'}, {conv.out_channels}"
                for name, conv in block.named_modules()
                if isinstance(conv, nn.Conv2d) and not name.startswith(SHORTCUTS)
            ]
            if convolutions:
                kinds[convolutions[0] if isinstance(block, nn.Conv2d) else f"[{'; '.join(convolutions)}]"] += 1
    return " + ".join(kind if not kind.startswith("[") else f"{kind} x {count}" for kind, count in kinds.items())


def _sizes(backbone: StagedNet, image_size: int | tuple[int, int]) -> list[str]:
    """Height x width after the stem and in each stage; a transition's down-sampling belongs to the next stage."""
    sizes: dict[str, str] = {}

    def note(name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        return lambda module, inputs, output: sizes.__setitem__(name, f"{output.shape[2]}x{output.shape[3]}")

    names = {"conv1": backbone._stem[0], **{f"stage{i}": stage[0] for i, stage in enumerate(backbone._stages)}}
    hooks = [backbone.get_submodule(module).register_forward_hook(note(key)) for key, module in names.items()]
    try:
        with answering(backbone), torch.no_grad():
            backbone(blank(backbone, image_size))
    finally:
        for hook in hooks:
            hook.remove()
    return [sizes[key] for key in names]
