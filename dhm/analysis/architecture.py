"""The architecture tables (Tables 6-10) read off the networks, their departures from print, and what branches cost."""

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dhm import paths
from dhm.branches import MAIN, BranchedNet
from dhm.errors import InputError
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
    rows = [Row("conv1", sizes[0], {MAIN: describe(net.backbone.stem)})]
    for index, stage in enumerate(net.backbone.stages):
        cells = {MAIN: describe(stage)}
        for name, (root, tower) in towers.items():
            if index >= root and tower.stages:
                cells[name] = describe(tower.stages[index - root])
        rows.append(Row(f"conv{index + 2}_x", sizes[index + 1], cells))
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
    was_training = backbone.training
    with torch.no_grad():
        backbone.eval()(_blank(backbone, image_size))
    backbone.train(was_training)
    for hook in hooks:
        hook.remove()
    return [sizes[key] for key in names]


def flops(net: BranchedNet, image_size: int | tuple[int, int] = 32) -> dict[str, int]:
    """Multiply-adds of one image, by owner: B0 (with the trunk) and what each branch adds while training.

    Inference runs B0 alone. A network on the device "meta" is counted without computing. Torch's counter takes a
    multiply-add for two operations; here it is one.
    """
    was_training = net.training
    net.eval()
    with torch.no_grad():
        image = _blank(net.backbone, image_size)
        inner = net.backbone.representations(image)
        parts: dict[str, tuple[nn.Module, torch.Tensor]] = {MAIN: (net.backbone, image)}
        parts |= {name: (net.branches[name], inner[root]) for name, root in net.roots.items()}
        counts = {}
        for name, (module, x) in parts.items():
            with FlopCounterMode(display=False) as counter:
                module(x)
            counts[name] = counter.get_total_flops() // 2
    net.train(was_training)
    return counts


def inference_flops(net: BranchedNet, image_size: int | tuple[int, int] = 32) -> int:
    """Multiply-adds of one image through the network in eval mode, counted as `flops` counts them."""
    was_training = net.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(_blank(net, image_size))
    net.train(was_training)
    return counter.get_total_flops() // 2


def _blank(net: nn.Module, image_size: int | tuple[int, int]) -> torch.Tensor:
    """A black image (1, 3, H, W) on the network's own device, which may be "meta"."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return torch.zeros(1, 3, height, width, device=next(net.parameters()).device)
