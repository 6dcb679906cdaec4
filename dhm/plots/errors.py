"""Errors by method, and gains with their intervals."""

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dhm.analysis.statistics import Gain, Samples
from dhm.analysis.variants import method_of, spoken
from dhm.plots.style import METHODS, NAMES, figure


def errors(panels: Mapping[str, Samples], unit: str = "top-1 error of B0 (%)") -> Figure:
    """Mean and standard deviation over seeds for every network and method, a panel for each source, one under the
    other; no bar where there is one run."""
    panels = {title: source for title, source in panels.items() if source}
    listed = [list(dict.fromkeys(network for network, _ in source)) for source in panels.values()]
    heights = [1.2 + 0.45 * len(networks) for networks in listed]
    fig, axes = figure(len(panels), 1, (8.4, sum(heights)), heights)
    for ax, networks, (title, source) in zip(axes, listed, panels.items(), strict=True):
        methods = [method for method in METHODS if any(m == method for _, m in source)]
        for offset, method in enumerate(methods):
            rows = [i for i, network in enumerate(networks) if (network, method) in source]
            found = [source[networks[i], method] for i in rows]
            places = [i + 0.2 * (offset - (len(methods) - 1) / 2) for i in rows]
            spread = [sample.std for sample in found]
            ax.errorbar(
                [sample.mean for sample in found], places, fmt="o", capsize=3,
                xerr=None if all(map(math.isnan, spread)) else spread,
                color=METHODS[method], label=NAMES[method],
            )  # fmt: skip
        ax.set(
            title=title,
            xlabel=_with_spread(unit, source),
            yticks=range(len(networks)),
            yticklabels=networks,
        )
        ax.set_ylim(len(networks) - 0.5, -0.5)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return fig


def ablation(panels: Mapping[str, Samples], variants: Sequence[str], unit: str = "top-1 error (%)") -> Figure:
    """Errors of a network's variants under each other, coloured by method, a panel for each source.

    A line in its colour marks the first variant, which the others are read against.
    """
    panels = {
        title: {key: sample for key, sample in source.items() if key[1] in variants}
        for title, source in panels.items()
    }  # fmt: skip
    panels = {title: source for title, source in panels.items() if source}
    variants = [name for name in variants if any(name == other for source in panels.values() for _, other in source)]
    fig, axes = figure(1, len(panels), (1.6 + 3.6 * len(panels), 1.3 + 0.32 * len(variants)))
    for ax, (title, source) in zip(axes, panels.items(), strict=True):
        for network in dict.fromkeys(network for network, _ in source):
            for row, name in enumerate(variants):
                if (network, name) not in source:
                    continue
                sample, colour = source[network, name], METHODS[method_of(name)]
                ax.errorbar(sample.mean, row, xerr=sample.std, fmt="o", capsize=3, color=colour)
                if row == 0:
                    ax.axvline(sample.mean, color=colour, linewidth=1.5, zorder=1)
        ax.set(
            title=title,
            xlabel=f"{_with_spread(unit, source)}\nline: {spoken(variants[0])}",
            yticks=range(len(variants)),
        )
        ax.set_yticklabels([spoken(name) for name in variants] if ax is axes[0] else [])
        ax.set_ylim(len(variants) - 0.5, -0.5)
    return fig


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
        ax.set(yticks=range(len(found)), yticklabels=[name(gain) for gain in found])
        ax.set_ylim(len(found) - 0.5, -0.5)
    handles = [
        Line2D([], [], color="#444444", marker="o", linestyle="", markerfacecolor=face, label=told)
        for face, told in (("#444444", "interval above 0"), ("white", "interval reaches 0 or below"))
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return fig
