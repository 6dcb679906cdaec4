"""What all figures share: colours of methods, a clean look, where they are saved."""

from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dhm import paths

METHODS = {"baseline": "#7f7f7f", "dsl": "#e69f00", "dhm": "#0072b2"}
"""Colours that stay apart for colour-blind readers (Okabe & Ito)."""
HEADS = ("#1b4f9c", "#b3541e", "#2b7a3d", "#87358c", "#a12b2b", "#456a6a")
"""Colours of B0, B1, ..., in this order."""
NAMES = {"baseline": "baseline", "dsl": "DSL", "dhm": "DHM"}


def figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 4.0)) -> tuple[Figure, list[Axes]]:
    """An empty figure in the house style and its axes in reading order; pyplot keeps no hold on it."""
    with (
        sns.axes_style("whitegrid", {"grid.color": "#e5e5e5", "axes.edgecolor": "#888888"}),
        sns.plotting_context("notebook", font_scale=0.85),
    ):
        fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    plt.close(fig)
    for ax in axes.flat:
        sns.despine(ax=ax)
    return fig, list(axes.flat)


def save(fig: Figure, name: str) -> Path:
    """Write a figure as `figures/<name>.png` (`$DHM_FIGURES` names another folder)."""
    folder = paths.figures_dir()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    fig.savefig(file, dpi=150)
    return file
