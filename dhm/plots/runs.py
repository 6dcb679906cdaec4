"""Runs at a glance: accuracy, every classifier, and the gap between training and test images, epoch by epoch."""

from collections.abc import Mapping
from typing import Any, Literal

from matplotlib.figure import Figure

from dhm.analysis.variants import method_of, spoken
from dhm.metrics import error_name, main_error
from dhm.plots.curves import Epochs
from dhm.plots.style import METHODS, figure, line, over_epochs

STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
MARKERS = "os^D"
"""Of lines and of single epochs, which are no lines yet: of B0, B1, B2, ..."""
TRAINING: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.7, "markerfacecolor": "white"}
"""Thin, since dashes tell classifiers apart."""


def overview(runs: Mapping[str, Epochs], epochs: int | None = None) -> Figure:
    """Three panels: B0's accuracy, the test error of every classifier, B0's training minus test accuracy.

    A search has no accuracy: its mAP stands in the first panel, 100 - mAP in the second, nothing in the third, which
    is left out where all runs are tested by one.

    Args:
        runs: name, which starts with the method -> metrics of the run so far.
        epochs: how far the axis goes; by default as far as the runs.
    """
    called = {name: error_name(lines[0]["test"]["B0"]) for name, lines in runs.items()}
    fig, axes = figure(1, 3 if "error" in called.values() else 2, (9.6, 3.6 + 0.24 * max(0, len(runs) - 5)))
    heads = list(dict.fromkeys(head for lines in runs.values() for line in lines for head in line["test"]))
    for name, lines in runs.items():
        colour, x = METHODS[method_of(name)], [line["epoch"] + 1 for line in lines]
        single = len(lines) == 1
        dot = "o" if single else ""
        train = [100 * line["train"]["accuracy/B0"] for line in lines]
        error = {head: [main_error(line["test"][head]) for line in lines if head in line["test"]] for head in heads}
        test = [100 - value for value in error["B0"]]
        axes[0].plot(x, train, color=colour, marker=dot, **TRAINING)
        axes[0].plot(x, test, color=colour, marker=dot)
        for head, style, mark in zip(heads, STYLES, MARKERS, strict=False):
            if error[head]:
                axes[1].plot(x, error[head], style, color=colour, marker=mark if single else "")
        if called[name] == "error":
            axes[2].plot(x, [a - b for a, b in zip(train, test, strict=True)], color=colour, marker=dot)
    titles = ("B0 in training and test", "every classifier in the test", "B0: training minus test")
    missed = " or ".join(dict.fromkeys(called.values()))
    accuracy = "accuracy (%)" if missed == "error" else "accuracy (%);\ntest of a search: mAP (%)"
    units = (accuracy, f"{missed} (%)", "points")
    for ax, title, unit in zip(axes, titles, units, strict=False):
        over_epochs(ax, title, unit)
        if epochs:
            ax.set_xlim(0.5, epochs + 0.5)
    if len(axes) == 3:
        axes[2].axhline(0, color="#888888", linewidth=1)
    early = any(len(lines) == 1 for lines in runs.values())
    dot = "o" if early else ""
    axes[0].legend(handles=[line("training", marker=dot, **TRAINING), line("test", marker=dot)], frameon=False)
    handles = [line(spoken(name), METHODS[method_of(name)]) for name in runs]
    handles += [
        line(head, linestyle=style, marker=mark if early else "")
        for head, style, mark in zip(heads, STYLES, MARKERS, strict=False)
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    return fig


def bars(runs: Mapping[str, Epochs], title: str = "") -> Figure:
    """Test error of every classifier after the last epoch, a group a run; hatched are those thrown away afterwards.

    Args:
        runs: name, which starts with the method -> metrics.
    """
    fig, (ax,) = figure(1, 1, (9.6, 3.4))
    left, ticks = 0.0, {}
    for name, lines in runs.items():
        errors = {head: main_error(values) for head, values in lines[-1]["test"].items()}
        for i, (head, error) in enumerate(errors.items()):
            colour, side = METHODS[method_of(name)], head != "B0"
            ax.bar(left + i, error, 0.9, color="white" if side else colour, edgecolor=colour, hatch="///" * side)
            ax.text(left + i, error, f"{head}\n{error:.1f}", ha="center", va="bottom", fontsize=9)
        ticks[left + (len(errors) - 1) / 2] = spoken(name)
        left += len(errors) + 0.7
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set(title=title, ylabel="test error (%)", ylim=(0, 1.22 * ax.dataLim.y1))
    ax.grid(axis="x", visible=False)
    return fig
