"""What all figures share: colours of methods, a clean look, where they are saved."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.display import display
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dhm import paths

METHODS = {"baseline": "#7f7f7f", "dsl": "#e69f00", "dhm": "#0072b2", "dml": "#009e73"}
"""Colours that stay apart for colour-blind readers (Okabe & Ito)."""
HEADS = ("#1b4f9c", "#b3541e", "#2b7a3d", "#87358c", "#a12b2b", "#456a6a")
"""Colours of B0, B1, ..., in this order."""
INK = "#222222"
BAND = 0.1
"""Opacity of the band between the lowest and the highest run."""


def figure(
    rows: int, columns: int, size: tuple[float, float], heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure in the house style and its axes in reading order; pyplot keeps no hold on it.

    Args:
        size: width and height in inches.
        heights: of the rows, relative to each other; equal by default.
    """
    with (
        sns.axes_style("whitegrid", {"grid.color": "#e5e5e5", "axes.edgecolor": "#888888"}),
        sns.plotting_context("notebook", font_scale=0.85),
    ):
        fig, axes = plt.subplots(
            rows, columns, figsize=size, height_ratios=heights, layout="constrained", squeeze=False
        )
    plt.close(fig)
    for ax in axes.flat:
        sns.despine(ax=ax)
    return fig, list(axes.flat)


def band(ax: Axes, runs: Sequence[Sequence[float] | np.ndarray], colour: str, line: str, unit: float = 1.0) -> None:
    """The mean over runs of curves with a value after every epoch, in a band from the lowest to the highest run.

    Every run is a thin line in it, since a mean may be of runs that are unlike each other.

    Args:
        runs: one curve a run, of equal length; nothing is drawn where there is none.
        unit: length of an epoch on the axis.
    """
    if not runs:
        return
    values = np.array(runs)
    x = unit * np.arange(1, values.shape[1] + 1)
    ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=BAND, linewidth=0)
    if len(values) > 1:
        ax.plot(x, values.T, line, color=colour, linewidth=0.5, alpha=0.5)
    ax.plot(x, values.mean(axis=0), line, color=colour, linewidth=1.6)


def over_epochs(ax: Axes, title: str, unit: str) -> None:
    """Name an axis that goes over epochs, and what is shown of them."""
    ax.set(title=title, xlabel="epoch", ylabel=unit)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def line(label: str, colour: str = INK, **style: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], color=colour, label=label, **style)


def beside(ax: Axes, handles: Sequence[Artist]) -> None:
    """A legend to the right of the axes."""
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def show(fig: Figure, name: str) -> None:
    """Write a figure as `<name>.png` into `dhm.paths.figures_dir()` and show it below a cell."""
    folder = paths.figures_dir()
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / f"{name}.png", dpi=150)
    display(fig)
