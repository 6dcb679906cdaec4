"""Curves of every classifier over several seeds, and error against what the training cost."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dhm.branches import MAIN
from dhm.plots.curves import Epochs
from dhm.plots.style import METHODS, NAMES, figure

HEADS = {"B0": "#0072b2", "B1": "#d55e00", "B2": "#009e73", "B3": "#cc79a7"}
"""Colours that stay apart for colour-blind readers (Okabe & Ito)."""
BAND = 0.18
"""Opacity of the band between the lowest and the highest run."""


def by_head(panels: Mapping[str, Mapping[str, Sequence[Epochs]]]) -> Figure:
    """Top-1 accuracy of every classifier in training (solid) and on the test images (dashed), a panel a method.

    Lines are means over seeds, bands reach from the lowest to the highest run.

    Args:
        panels: title of a row, e.g. an experiment -> method -> metrics of its runs, one a seed.
    """
    methods = list(dict.fromkeys(method for runs in panels.values() for method in runs))
    fig, axes = figure(len(panels), len(methods), (1.4 + 3.5 * len(methods), 0.4 + 2.9 * len(panels)))
    grid = np.array(axes).reshape(len(panels), len(methods))
    for row, (title, runs) in zip(grid, panels.items(), strict=True):
        for ax, method in zip(row, methods, strict=True):
            for head, colour in HEADS.items():
                if all(head in lines[-1]["test"] for lines in runs.get(method, [])):
                    _band(ax, [_training(lines, head) for lines in runs.get(method, [])], colour, "-")
                    _band(ax, [_test(lines, head) for lines in runs.get(method, [])], colour, "--")
            count = len(runs.get(method, []))
            ax.set_title(f"{title}\n{NAMES[method]}, {count} run{'' if count == 1 else 's'}", fontsize=9)
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        row[0].set_ylabel("top-1 accuracy (%)")
        highest = max(ax.get_ylim()[1] for ax in row)
        for ax in row:
            ax.set_ylim(0, highest)
    shown = {head for runs in panels.values() for all_runs in runs.values() for r in all_runs for head in r[-1]["test"]}
    lines = [Line2D([], [], color=colour, label=head) for head, colour in HEADS.items() if head in shown]
    lines += [
        Line2D([], [], color="#222222", label="training"),
        Line2D([], [], color="#222222", linestyle="--", label="test"),
    ]
    grid[0, -1].legend(handles=lines, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return fig


def against_cost(panels: Mapping[str, Mapping[str, tuple[float, Sequence[Epochs]]]]) -> Figure:
    """Test error of B0 against the training FLOPs spent so far, a panel a title; lines and bands as in `by_head`.

    Args:
        panels: title -> method -> (FLOPs of an epoch, metrics of its runs).
    """
    fig, axes = figure(1, len(panels), (1.4 + 4.6 * len(panels), 3.6))
    for ax, (title, runs) in zip(axes, panels.items(), strict=True):
        for method, (flops, metrics) in runs.items():
            _band(ax, [100 - _test(lines, MAIN) for lines in metrics], METHODS[method], "-", flops / 1e15)
        ax.set(title=title, xlabel="training cost (10$^{15}$ multiply-adds)", ylabel="top-1 error of B0 (%)")
        ax.set_xlim(left=0)
    methods = dict.fromkeys(method for runs in panels.values() for method in runs)
    handles = [Line2D([], [], color=METHODS[method], label=NAMES[method]) for method in methods]
    axes[-1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return fig


def _training(lines: Epochs, head: str) -> np.ndarray:
    return np.array([100 * line["train"][f"accuracy/{head}"] for line in lines])


def _test(lines: Epochs, head: str) -> np.ndarray:
    return np.array([100 - line["test"][head]["top1_error"] for line in lines])


def _band(ax: Axes, runs: Sequence[np.ndarray], colour: str, style: str, unit: float = 1.0) -> None:
    """Mean and range of curves that have a value after every epoch; an epoch is `unit` long."""
    if not runs:
        return
    values = np.stack(runs)
    x = unit * np.arange(1, values.shape[1] + 1)
    ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=BAND, linewidth=0)
    ax.plot(x, values.mean(axis=0), color=colour, linestyle=style, linewidth=1.3)
