"""Errors by method, and gains with their intervals."""

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dhm.analysis.statistics import Gain, Samples, networks_of
from dhm.analysis.variants import method_of, spoken
from dhm.plots.style import METHODS, figure, line


def errors(panels: Mapping[str, Samples], unit: str = "top-1 error of B0 (%)") -> Figure:
    """Mean and standard deviation over seeds for every network and method, a panel for each source, one under the
    other; no bar where there is one run."""
    panels = {title: source for title, source in panels.items() if source}
    heights = [1.2 + 0.45 * len(networks_of(source)) for source in panels.values()]
    fig, axes = figure(len(panels), 1, (8.4, sum(heights)), heights)
    for ax, (title, source) in zip(axes, panels.items(), strict=True):
        networks = networks_of(source)
        methods = [method for method in METHODS if any(m == method for _, m in source)]
        for offset, method in enumerate(methods):
            found = {i: source[name, method] for i, name in enumerate(networks) if (name, method) in source}
            places = [i + 0.2 * (offset - (len(methods) - 1) / 2) for i in found]
            spread = [sample.std for sample in found.values()]
            ax.errorbar(
                [sample.mean for sample in found.values()], places, fmt="o", capsize=3,
                xerr=None if all(map(math.isnan, spread)) else spread,
                color=METHODS[method], label=spoken(method),
            )  # fmt: skip
        ax.set(title=title, xlabel=_with_spread(unit, source))
        _rows(ax, networks)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return fig


def ablation(panels: Mapping[str, Samples], variants: Sequence[str], unit: str = "top-1 error (%)") -> Figure:
    """Errors of a network's variants under each other, coloured by method, a panel for each source.

    A line in its colour marks the first variant, which the others are read against.
    """
    panels = {title: {key: s for key, s in source.items() if key[1] in variants} for title, source in panels.items()}
    panels = {title: source for title, source in panels.items() if source}
    variants = [name for name in variants if any(name == other for source in panels.values() for _, other in source)]
    fig, axes = figure(1, len(panels), (1.6 + 3.6 * len(panels), 1.3 + 0.32 * len(variants)))
    for ax, (title, source) in zip(axes, panels.items(), strict=True):
        for network in networks_of(source):
            for row, name in enumerate(variants):
                if (network, name) not in source:
                    continue
                sample, colour = source[network, name], METHODS[method_of(name)]
                ax.errorbar(sample.mean, row, xerr=sample.std, fmt="o", capsize=3, color=colour)
                if row == 0:
                    ax.axvline(sample.mean, color=colour, linewidth=1.5, zorder=1)
        ax.set(title=title, xlabel=f"{_with_spread(unit, source)}\nline: {spoken(variants[0])}")
        _rows(ax, [spoken(name) if ax is axes[0] else "" for name in variants])
    return fig


def _rows(ax: Axes, names: Sequence[str]) -> None:
    """Rows with their names, the first on top."""
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))


def _with_spread(unit: str, source: Samples) -> str:
    """What an axis shows, with the meaning of its bars if there are any."""
    single = all(math.isnan(sample.std) for sample in source.values())
    return unit if single else f"{unit}\nmean ± deviation over seeds"


def forest(panels: Mapping[str, Sequence[Gain]], name: Callable[[Gain], str] = lambda gain: gain.label) -> Figure:
    """Gains with their intervals, a panel for each source; filled dots where the interval lies above 0,
    as the legend says.

    Args:
        panels: title -> gains.
        name: how a gain is called at its row, its whole label by default.
    """
    panels = {title: found for title, found in panels.items() if found}
    rows = max(len(found) for found in panels.values())
    fig, axes = figure(1, len(panels), (4.6 * len(panels), 1.2 + 0.32 * rows))
    for ax, (title, found) in zip(axes, panels.items(), strict=True):
        for i, gain in enumerate(found):
            colour = METHODS["dhm"] if gain.label.rpartition(": ")[2].startswith("DHM") else METHODS["dsl"]
            if math.isfinite(gain.low):
                ax.plot([gain.low, gain.high], [i, i], color=colour, linewidth=2, alpha=0.6)
            ax.plot(gain.value, i, "o", color=colour, markerfacecolor=colour if gain.low > 0 else "white")
        ax.axvline(0, color="#444444", linewidth=1)
        ax.set(title=title, xlabel="gain (points of top-1 error)")
        _rows(ax, [name(gain) for gain in found])
    faces = {"interval above 0": "#444444", "interval reaches 0 or below": "white"}
    dot = {"marker": "o", "linestyle": ""}
    handles = [line(told, "#444444", markerfacecolor=face, **dot) for told, face in faces.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return fig
