"""Training curves in the manner of Figures 2 and 3."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dhm.analysis.variants import method_of, spoken
from dhm.branches import MAIN
from dhm.plots.style import METHODS, band, beside, figure, line, over_epochs

Epochs = Sequence[Mapping[str, Any]]
"""The metrics of a run record, one entry an epoch."""
UNIT = "top-1 accuracy of B0 (%)"
END: dict[str, Any] = {"marker": "D", "markerfacecolor": "white", "markersize": 6}
"""The diamond at the end of a run."""
INSET_LEFT, INSET_BOTTOM, INSET_HEIGHT = 0.40, 0.06, 0.42
"""Where the zoomed part stands and its largest height, in shares of the axes."""


def training(
    panels: Mapping[str, Mapping[str, Epochs]], plain: Mapping[str, Mapping[str, float]] | None = None, zoom: int = 0
) -> Figure:
    """Top-1 accuracy of B0 in training (solid) and validation (dashed), all variants in one axis, the end zoomed in.

    Training accuracy is what the loop saw: on augmented images, in training mode, the mean over the epoch while the
    weights change.

    Args:
        panels: title, e.g. a network -> variant -> metrics of its run.
        plain: the same -> accuracy in percent on the training images as they are, in eval mode, after the last epoch;
            drawn as a diamond.
        zoom: epochs in the zoomed part; 0 for a third of them.
    """
    fig, axes = figure(1, len(panels), (1.5 + 5.6 * len(panels), 4.4))
    for ax, (title, runs) in zip(axes, panels.items(), strict=True):
        marks = (plain or {}).get(title, {})
        _draw(ax, runs, marks)
        over_epochs(ax, title, UNIT)
        _magnify(ax, runs, marks, zoom)
    lines = _legend(panels)
    if plain and any(plain.values()):
        lines.append(line("training images,\neval mode, no\naugmentation", linestyle="none", **END))
    beside(axes[-1], lines)
    return fig


def ranges(panels: Mapping[str, Mapping[str, Sequence[Epochs]]]) -> Figure:
    """Top-1 accuracy of B0 in training (solid) and validation (dashed) as in Figure 3: the mean over runs, in a band
    from the least to the largest.

    Training accuracy is what the loop saw, against the labels it was given: of corrupt ones, it rises with what is
    learnt by heart.

    Args:
        panels: title -> variant -> metrics of its runs, which have the same number of epochs.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    fig, axes = figure(rows, columns, (1.6 + 4.4 * columns, 3.8 * rows))
    for ax, (title, variants) in zip(axes, panels.items(), strict=False):
        for name, runs in variants.items():
            bands(ax, runs, METHODS[method_of(name)])
        over_epochs(ax, title, UNIT)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    beside(axes[columns - 1], _legend(panels))
    return fig


def _legend(panels: Mapping[str, Mapping[str, object]]) -> list[Line2D]:
    """Every variant of some panels, and the two kinds of lines."""
    names = dict.fromkeys(name for variants in panels.values() for name in variants)
    variants = [line(spoken(name), METHODS[method_of(name)]) for name in names]
    return [*variants, line("training"), line("validation", linestyle="--")]


def bands(ax: Axes, runs: Sequence[Epochs], colour: str, head: str = MAIN) -> None:
    """A classifier's accuracy over several runs as `band` draws it: training solid, on the other images dashed."""
    for number, style in ((1, "-"), (2, "--")):
        band(ax, [accuracies(metrics, head)[number] for metrics in runs], colour, style)


def accuracies(epochs: Epochs, head: str = MAIN) -> tuple[list[int], list[float], list[float]]:
    """Epochs counted from 1, and a classifier's training and validation accuracy after each, in percent."""
    return (
        list(range(1, len(epochs) + 1)),
        [100 * each["train"][f"accuracy/{head}"] for each in epochs],
        [100 - each["test"][head]["top1_error"] for each in epochs],
    )


def _draw(ax: Axes, runs: Mapping[str, Epochs], marks: Mapping[str, float]) -> None:
    for name, lines in runs.items():
        colour = METHODS[method_of(name)]
        epochs, train, validation = accuracies(lines)
        ax.plot(epochs, train, color=colour, linewidth=1.4)
        ax.plot(epochs, validation, color=colour, linewidth=1.4, linestyle="--")
        if name in marks:
            ax.plot(epochs[-1], marks[name], color=colour, clip_on=False, **END)


def _magnify(ax: Axes, runs: Mapping[str, Epochs], marks: Mapping[str, float], zoom: int) -> None:
    """Draw the last epochs again, larger, in room made below the curves."""
    last = max(len(lines) for lines in runs.values())
    first = max(1, last - (zoom or max(2, last // 3)) + 1)
    if first == last:
        return
    points = [(last, mark) for mark in marks.values()]
    for epochs, train, validation in map(accuracies, runs.values()):
        points += [*zip(epochs, train, strict=True), *zip(epochs, validation, strict=True)]
    low, high = min(value for _, value in points), max(value for _, value in points)
    edge = 1 + (INSET_LEFT - 0.05) / 0.9 * (last - 1)  # the epoch above the inset's left side
    beside = min(value for epoch, value in points if epoch >= int(edge))
    free = INSET_BOTTOM + INSET_HEIGHT + 0.1  # the share of the axes' height that curves should leave to the inset
    low = max(0.0, min(low, (beside - free * high) / (1 - free)))
    height = min(INSET_HEIGHT, max(0.15, (beside - low) / (high - low) - INSET_BOTTOM - 0.1))
    ax.set_ylim(low - 0.02 * (high - low), high + 0.04 * (high - low))
    inset = ax.inset_axes((INSET_LEFT, INSET_BOTTOM, 0.97 - INSET_LEFT, height))
    _draw(inset, runs, marks)
    shown = [value for epoch, value in points if epoch >= first]
    margin = 0.06 * (max(shown) - min(shown)) + 0.1
    inset.set(xlim=(first, last), ylim=(min(shown) - margin, max(shown) + margin))
    inset.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    inset.tick_params(labelsize=8)
    ax.indicate_inset_zoom(inset, edgecolor="#888888")
