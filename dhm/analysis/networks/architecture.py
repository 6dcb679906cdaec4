"""The architecture tables (Tables 6-10) read off the networks, and their departures from print."""

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from dhm import paths
from dhm.branches import MAIN, BranchedNet, answering
from dhm.errors import InputError
from dhm.flops import blank
from dhm.models import StagedNet

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


def departures(name: str, net: BranchedNet, image_size: int) -> list[Departure]:
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
