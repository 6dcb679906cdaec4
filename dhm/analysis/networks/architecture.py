"""The architecture tables (Tables 6-10) read off the networks, and their departures from print."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from dhm import paths
from dhm.branches import MAIN, BranchedNet, answering
from dhm.errors import InputError
from dhm.flops import blank, flops, inference_flops
from dhm.models import StagedNet
from dhm.zoo import MODELS, create_model

SHORTCUTS = ("shortcut", "downsample")


@dataclass(frozen=True)
class Row:
    """A line of an architecture table.

    Attributes:
        layer: conv1 (the stem), conv2_x, conv3_x, ... (the stages) or classifier.
        output_size: height x width of its output.
        cells: head -> its blocks, e.g. "[3x3, 16; 3x3, 16] x 5"; heads that share the trunk there have none.
    """

    layer: str
    output_size: str
    cells: dict[str, str]


def table(net: BranchedNet, image_size: int | tuple[int, int] = 32) -> list[Row]:
    """The network in the manner of Tables 6-10, measured on images of the given height and width."""
    sizes = _sizes(net.backbone, image_size)
    towers: dict[str, tuple[int, StagedNet]] = {
        name: (root, net.branches[name])  # type: ignore[misc]
        for name, root in net.roots.items()
    }
    rows = []
    for index, part in enumerate(net.backbone.parts):
        cells = {MAIN: describe(part)}
        for name, (root, tower) in towers.items():
            if index > root and tower.parts:
                cells[name] = describe(tower.parts[index - root - 1])
        rows.append(Row(f"conv{index + 1}_x" if index else "conv1", sizes[index], cells))
    heads = {MAIN: net.backbone, **{name: tower for name, (_, tower) in towers.items()}}
    rows.append(
        Row("classifier", "1x1", {name: f"average pool, {t.classifier.out_features}-d fc" for name, t in heads.items()})
    )
    return rows


def frame(net: BranchedNet, image_size: int | tuple[int, int] = 32) -> pd.DataFrame:
    """The network's table as the paper sets it: a row a layer, a column a head (B0, then from shallow to deep)."""
    columns = [MAIN, *reversed(net.roots)]
    rows = {
        (row.layer, row.output_size): [row.cells.get(head, "") for head in columns] for row in table(net, image_size)
    }
    index = pd.MultiIndex.from_tuples(rows, names=["layer", "output size"])
    return pd.DataFrame(list(rows.values()), index=index, columns=columns)


@dataclass(frozen=True)
class Departure:
    """A cell in which a network is not the printed one; ours and theirs as in `Row.cells`, or the output size."""

    network: str
    layer: str
    column: str
    ours: str
    printed: str


def departures(name: str, net: BranchedNet, image_size: int | tuple[int, int]) -> list[Departure]:
    """Cells of Tables 6-9 in which a network differs from print; an empty list where it is the printed one.

    Raises:
        InputError: the paper prints no table of this network.
    """
    with open(paths.embedded("paper/architectures.csv"), newline="") as file:
        printed = [row for row in csv.DictReader(file) if row["network"] == name]
    if not printed:
        raise InputError(f"Tables 6-9 print no network {name!r}")
    found = []
    for ours, theirs in zip(table(net, image_size), printed, strict=False):
        cells = {"layer": ours.layer, "output_size": ours.output_size, **{h: ours.cells.get(h, "") for h in net.heads}}
        found += [Departure(name, ours.layer, c, cell, theirs[c]) for c, cell in cells.items() if cell != theirs[c]]
    return found


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
    largest takes no memory: name -> (network, image size)."""
    used = {name: IMAGES.get(MODELS[name].family, (32, 100)) for name in dict.fromkeys(names)}
    with torch.device("meta"):
        return {name: (create_model(name, num_classes=classes), size) for name, (size, classes) in used.items()}


def compare(names: Iterable[str]) -> tuple[int, pd.DataFrame]:
    """How many of the networks stand in Tables 6 to 9, and their `departures` from print."""
    printed = [name for name in names if MODELS[name].source in COMPARED]
    rows = [vars(each) for name, (net, size) in build(printed).items() for each in departures(name, net, size)]
    return len(printed), pd.DataFrame(rows, columns=list(Departure.__annotations__))


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
