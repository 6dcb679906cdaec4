"""Figure 4: correlation maps of two branches, and how they stand to their nulls."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dhm.analysis.variants import spoken
from dhm.plots.style import METHODS, figure, line

AXES = {
    "between filters": ("filter of B2", "filter of B0"),
    "between channels": ("input channel of B2", "input channel of B0"),
    "entry by entry": ("input channel", "output channel"),
}


def heatmaps(maps: Mapping[str, Mapping[str, np.ndarray]], reading: str) -> Figure:
    """Maps of one reading: a row for each layer, DSL left and DHM right as in Figure 4.

    Args:
        maps: layer -> method -> map. All share one colour scale, symmetric about 0.
        reading: a name of `dhm.analysis.features.correlation.READINGS`; it names the axes.
    """
    shape = len(maps), len(next(iter(maps.values())))
    limit = max(float(np.quantile(np.abs(m), 0.995)) for by_method in maps.values() for m in by_method.values())
    fig, axes = figure(*shape, (0.9 + 2.9 * shape[1], 0.6 + 2.7 * shape[0]))
    drawn = [(f"{layer}, {spoken(method)}", m) for layer, row in maps.items() for method, m in row.items()]
    for ax, (title, values) in zip(axes, drawn, strict=True):
        image = ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
        ax.grid(False)
        ax.set_title(title)
    for ax in axes[-shape[1] :]:
        ax.set_xlabel(AXES[reading][0])
    for ax in axes[:: shape[1]]:
        ax.set_ylabel(AXES[reading][1])
    what = "product of normalised entries" if reading == "entry by entry" else "correlation"
    fig.colorbar(image, ax=axes, label=what, shrink=0.6, extend="both")
    return fig


def nulls(table: pd.DataFrame) -> Figure:
    """Observed statistics beside what independent kernels give, a panel for each statistic.

    Args:
        table: columns layer, method, statistic ("reading: what is shown"), observed, null_low, null_high (the
            null's 2.5 and 97.5 percentiles).
    """
    statistics, layers = list(table["statistic"].unique()), list(table["layer"].unique())
    methods = [method for method in METHODS if method in set(table["method"])]
    fig, axes = figure(1, len(statistics), (1.0 + 3.6 * len(statistics), 1.5 + 0.5 * len(layers)))
    for ax, statistic in zip(axes, statistics, strict=True):
        chosen = table[table["statistic"] == statistic]
        for offset, method in enumerate(methods):
            for row in chosen[chosen["method"] == method].itertuples():
                y = layers.index(row.layer) + 0.24 * (offset - (len(methods) - 1) / 2)
                ax.plot([row.null_low, row.null_high], [y, y], color="#bbbbbb", linewidth=6, solid_capstyle="butt")
                ax.plot(row.observed, y, "o", color=METHODS[method])
        title, _, what = statistic.partition(": ")
        ax.set(title=title, xlabel=what, yticks=range(len(layers)), ylim=(len(layers) - 0.5, -0.5))
        ax.set_yticklabels(layers if ax is axes[0] else [])
    handles = [line(spoken(method), METHODS[method], marker="o", linestyle="") for method in methods]
    handles.append(line("without correspondence (95%)", "#bbbbbb", linewidth=6))
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return fig
