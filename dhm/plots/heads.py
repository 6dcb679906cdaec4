"""Curves of every classifier over several seeds, and error against what the training cost."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from dhm.analysis.variants import spoken
from dhm.branches import MAIN
from dhm.plots.curves import Epochs, bands
from dhm.plots.style import HEADS, METHODS, band, beside, figure, line, over_epochs


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
            for head, colour in _coloured(runs.get(method, [])).items():
                bands(ax, runs[method], colour, head)
            count = len(runs.get(method, []))
            over_epochs(ax, "", "")
            if not count:
                ax.set_axis_off()
            ax.set_title(f"{title}\n{spoken(method)}, {count} run{'' if count == 1 else 's'}", fontsize=9)
        row[0].set_ylabel("top-1 accuracy (%)")
        highest = max(ax.get_ylim()[1] for ax in row)
        for ax in row:
            ax.set_ylim(0, highest)
    shown = _coloured([lines for runs in panels.values() for found in runs.values() for lines in found])
    lines = [line(head, colour) for head, colour in shown.items()]
    beside(grid[0, -1], [*lines, line("training"), line("test", linestyle="--")])
    return fig


def held_out(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Held-out accuracy of every classifier over training: title -> head -> top-1 in percent after each epoch."""
    fig, axes = figure(1, len(curves), (1.2 + 4.2 * len(curves), 3.6))
    for ax, (title, heads) in zip(axes, curves.items(), strict=True):
        for head, values in heads.items():
            ax.plot(range(1, len(values) + 1), values, marker="o", markersize=3, color=HEADS[list(heads).index(head)],
                    label=head)  # fmt: skip
        over_epochs(ax, title, "held-out top-1 accuracy (%)")
        ax.legend(frameon=False, loc="lower right")
        ax.sharey(axes[0])
    return fig


def against_cost(panels: Mapping[str, Mapping[str, tuple[float, Sequence[Epochs]]]]) -> Figure:
    """Test error of B0 against the training FLOPs spent so far, a panel a title; lines and bands as in `by_head`.

    Args:
        panels: title -> method -> (FLOPs of an epoch, metrics of its runs).
    """
    fig, axes = figure(1, len(panels), (1.4 + 4.6 * len(panels), 3.6))
    for ax, (title, runs) in zip(axes, panels.items(), strict=True):
        for method, (flops, metrics) in runs.items():
            errors = [[each["test"][MAIN]["top1_error"] for each in lines] for lines in metrics]
            band(ax, errors, METHODS[method], "-", flops / 1e12)
        ax.set(title=title, xlabel="training cost (10$^{12}$ multiply-adds)", ylabel="top-1 error of B0 (%)")
        ax.set_xlim(left=0)
    methods = dict.fromkeys(method for runs in panels.values() for method in runs)
    beside(axes[-1], [line(spoken(method), METHODS[method]) for method in methods])
    return fig


def _coloured(runs: Sequence[Epochs]) -> dict[str, str]:
    """Every classifier of some runs, B0 first, and its colour."""
    heads = sorted({head for lines in runs for head in lines[-1]["test"]})
    return dict(zip(heads, HEADS, strict=False))
