"""Trunk and branches in the manner of Figure 1, for any branched network."""

import itertools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from torch import nn

from dhm.attach import AttachedNet, Tail
from dhm.attach.shapes import shapes_of
from dhm.attach.stages import Trace
from dhm.attach.tracing import trace
from dhm.branches import MAIN, BranchedNet
from dhm.flops import blank
from dhm.plots.style import HEADS

STAGE, DOWN, PLAIN, INK = "#d6e6f5", "#f9cf98", "#ececec", "#333333"
BOX_WIDTH, BOX_HEIGHT, COLUMN, ROW = 1.62, 0.96, 2.1, 1.45
"""In inches: of a box, and from one column or row to the next."""
TEXT = 11.5
"""Size of letters in points, to be read where the drawing stands in a column of 850 pixels."""


@dataclass(frozen=True)
class Box:
    """A part of the network as it is drawn: its text, and whether it makes the image smaller."""

    text: str
    smaller: bool = False


def draw_network(net: BranchedNet, image_size: int | tuple[int, int] = 32, title: str = "") -> Figure:
    """Stages as boxes (down-samplings coloured), branches from their roots, heads as dots, mimicking pairs dashed.

    Names, roots, channels and numbers of blocks are read from the network; sizes from a pass without arithmetic over
    an image of `image_size` pixels a side, or height and width: seconds for a network of a thousand layers.
    """
    shapes = deepcopy(net).to("meta").eval()
    with torch.no_grad():
        x = blank(shapes, image_size)
        inner = shapes.representations(x)
        stem = Box(f"stem\n{_size(inner[0])}", inner[0].shape[-1] < x.shape[-1])
        trunk = _boxes(shapes.backbone.stages, 0, inner[0], inner[0].shape[-1])
        towers, widths = {MAIN: [box for box, _ in trunk]}, [inner[0].shape[-1], *(width for _, width in trunk)]
        for name, root in shapes.roots.items():
            stages, start = getattr(shapes.branches[name], "stages", ()), max(root, 0)
            own = [box for box, _ in _boxes(stages, start, inner[start], widths[start])]
            towers[name] = own if root == start else [stem, *own]
    return _draw(x.shape[2:], stem, towers, shapes.roots, title)


def draw_attached(net: AttachedNet, image_size: int = 224, title: str = "") -> Figure:
    """The same for a foreign network: a box is a stage, named by the module that ends it, with channels and size there.

    A hand-written branch is a line without boxes.
    """
    traced = trace(net.backbone, image_size)
    ends = {name: traced.calls[name] for name in traced.levels}
    sizes = [image_size, *(call.output.shape[-1] for call in ends.values())]
    trunk = [_stage_box(name, call.output, sizes[i]) for i, (name, call) in enumerate(ends.items())]
    towers, roots = {MAIN: trunk[1:]}, {}
    for name, root in net.roots.items():
        passed = sum(call.end <= traced.calls[root].end for call in ends.values())
        roots[name], branch = passed - 1, net.branches[name]
        towers[name] = _tail_boxes(branch, traced, passed, sizes) if isinstance(branch, Tail) else []
    return _draw((image_size, image_size), trunk[0], towers, roots, title)


def _tail_boxes(tail: Tail, traced: Trace, passed: int, sizes: Sequence[int]) -> list[Box]:
    shapes, names = shapes_of(tail).eval(), traced.levels[passed:]
    outputs: dict[str, torch.Tensor] = {}
    for name in names:
        shapes.net.get_submodule(name).register_forward_hook(  # type: ignore[union-attr, operator]
            lambda module, args, output, name=name: outputs.__setitem__(name, output)
        )
    with torch.no_grad():
        shapes(traced.calls[tail.root].output)
    blocks = {names[-1]: tail.blocks_text}
    return [
        _stage_box(name, outputs[name], sizes[i], blocks.get(name, "")) for i, name in enumerate(names, start=passed)
    ]


def _stage_box(name: str, x: torch.Tensor, width: int, blocks: str = "") -> Box:
    shown = name if len(name) <= 18 else f"…{name[-17:]}"
    return Box("\n".join(line for line in (shown, blocks, _size(x)) if line), x.shape[-1] < width)


def _boxes(stages: Sequence[nn.Module], root: int, x: torch.Tensor, width: int) -> list[tuple[Box, int]]:
    """A box for each stage after `root`, named as in the paper's tables (the first stage is conv2_x), and its width.

    `width` is that of the box before. As in the tables, a transition layer at the end of a stage counts to the next.
    """
    boxes = []
    for number, stage in enumerate(stages, start=root + 2):
        first, *rest = stage.children()
        blocks = f"{len(first)} block{'' if len(first) == 1 else 's'}\n" if isinstance(first, nn.Sequential) else ""
        x = first(x)
        boxes.append((Box(f"conv{number}_x\n{blocks}{_size(x)}", x.shape[-1] < width), x.shape[-1]))
        width = x.shape[-1]
        for part in rest:
            x = part(x)
    return boxes


def _size(x: torch.Tensor) -> str:
    _, channels, height, width = x.shape
    return f"{channels} × {height}×{width}"


def _draw(
    image: Sequence[int], stem: Box, towers: Mapping[str, list[Box]], roots: Mapping[str, int], title: str
) -> Figure:
    """Columns: image, stem, stages, heads. Rows: the trunk at the bottom, above it branches from deep to shallow, so
    that no line crosses another.

    Args:
        image: height and width.
        towers: classifier -> the stages of its own part.
        roots: branch -> the stage after which it starts.
    """
    stages, heads = len(towers[MAIN]), list(towers)
    dots = COLUMN * (stages + 2) - 0.55
    reach = 0.5 + 0.42 * max(len(heads) - 1, 1)
    left, right, bottom, top = -0.75, dots + reach + 0.35, -1.0, ROW * (len(heads) - 1) + 0.75 + 0.35 * bool(title)
    figure = plt.figure(figsize=(right - left, top - bottom))  # by pyplot, which is what lets Jupyter show it
    plt.close(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()

    def column(stage: int) -> float:
        return COLUMN * (stage + 1)

    axes.text(0, 0, f"image\n{image[0]}×{image[1]}", ha="center", va="center", color=INK, fontsize=TEXT)
    _line(axes, [(0.42, 0), (column(0) - BOX_WIDTH / 2, 0)], arrow=True)
    _box(axes, column(0), 0, stem, plain=True)
    for row, (name, colour) in enumerate(zip(heads, itertools.cycle(HEADS), strict=False)):
        y, root = ROW * row, roots.get(name, 0)
        x = column(root) + BOX_WIDTH / 2
        if name != MAIN:
            fork = column(root) + COLUMN / 2
            _line(axes, [(fork, 0), (fork, y)], colour)
            axes.plot(fork, 0, "o", color=colour, markersize=4, zorder=3)
            x = fork
        for index, box in enumerate(towers[name], start=root + 1):
            _line(axes, [(x, y), (column(index) - BOX_WIDTH / 2, y)], colour, arrow=True)
            _box(axes, column(index), y, box, plain=index == 0)
            x = column(index) + BOX_WIDTH / 2
        _line(axes, [(x, y), (dots - 0.12, y)], colour, arrow=True)
        axes.plot(dots, y, "o", color=colour, markersize=11, zorder=3)
        axes.text(dots + 0.02, y - 0.28, name, ha="center", va="center", color=colour, weight="bold", fontsize=TEXT)
    for lower, upper in itertools.combinations(range(len(heads)), 2):
        axes.add_patch(_mimicking(dots, lower, upper))
    _legend(axes, several=len(heads) > 1)
    if title:
        axes.text((left + right) / 2, top - 0.22, title, ha="center", va="center", fontsize=TEXT + 2, color=INK)
    return figure


def _box(axes: Axes, x: float, y: float, box: Box, plain: bool = False) -> None:
    colour = DOWN if box.smaller else PLAIN if plain else STAGE
    corner = (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2)
    axes.add_patch(
        FancyBboxPatch(corner, BOX_WIDTH, BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.08", facecolor=colour,
                       edgecolor=INK, linewidth=0.8, zorder=2)
    )  # fmt: skip
    axes.text(x, y, box.text, ha="center", va="center", color=INK, fontsize=TEXT, zorder=3)


def _line(axes: Axes, points: list[tuple[float, float]], colour: str = INK, arrow: bool = False) -> None:
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, zorder=1, solid_capstyle="butt")
    if arrow:
        axes.plot(points[-1][0] - 0.05, points[-1][1], ">", color=colour, markersize=5, zorder=1)


def _mimicking(x: float, lower: int, upper: int) -> FancyArrowPatch:
    """A dashed arc with two heads between the dots of two rows; arcs over more rows reach further out."""
    rows = upper - lower
    return FancyArrowPatch(
        (x + 0.14, ROW * lower + 0.08), (x + 0.14, ROW * upper - 0.08), arrowstyle="<|-|>", mutation_scale=9,
        connectionstyle=f"arc3,rad={(0.2 + 0.42 * rows) * 2 / (ROW * rows):.3f}", linestyle=(0, (4, 2)),
        linewidth=1.1, color="#777777", zorder=1,
    )  # fmt: skip


def _legend(axes: Axes, several: bool) -> None:
    handles: list = [
        Patch(facecolor=STAGE, edgecolor=INK, linewidth=0.8, label="stage"),
        Patch(facecolor=DOWN, edgecolor=INK, linewidth=0.8, label="down-sampling"),
        Line2D([], [], marker="o", linestyle="none", color=INK, label="classifier"),
    ]
    if several:
        handles.append(Line2D([], [], linestyle=(0, (4, 2)), color="#777777", label="mimic each other"))
    axes.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=TEXT)
