"""Figures of gradient consistency at the shared trunk."""

import pandas as pd
from matplotlib.figure import Figure

from dhm.analysis.variants import spoken
from dhm.plots.style import METHODS, beside, figure, line


def _stage(number: int) -> str:
    return "stem" if number == 0 else f"conv{number + 1}_x"


def cosines(table: pd.DataFrame) -> Figure:
    """Cosines between the classifiers' gradients by stage, a panel for each pair, a colour for each method.

    Args:
        table: of `agreement.measure`. Dots are single seeds (the gradient over all images); lines join the methods'
            means; bars are the micro-batches' intervals.
    """
    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    methods = [method for method in METHODS if method in set(table["method"])]
    fig, axes = figure(1, len(pairs), (1.0 + 3.4 * len(pairs), 3.6))
    for ax, (first, second) in zip(axes, pairs, strict=True):
        chosen = table[(table["first"] == first) & (table["second"] == second)]
        for offset, method in enumerate(methods):
            rows = chosen[chosen["method"] == method]
            shift = 0.16 * (offset - (len(methods) - 1) / 2)
            means = rows.groupby("stage")["cosine"].mean()
            ax.plot(means.index + shift, means, "-", color=METHODS[method], linewidth=1, alpha=0.6)
            label = spoken(method)
            ax.plot(rows["stage"] + shift, rows["cosine"], "o", color=METHODS[method], markersize=5, label=label)
            for row in rows.itertuples():
                ax.plot([row.stage + shift] * 2, [row.low, row.high], color=METHODS[method], linewidth=4, alpha=0.3)
        stages = sorted(chosen["stage"].unique())
        ax.axhline(0, color="#444444", linewidth=1)
        ax.set(title=f"{first} and {second}", xticks=stages, xticklabels=[_stage(s) for s in stages])
        ax.set_xlim(stages[0] - 0.5, stages[-1] + 0.5)
    low, high = table[["cosine", "low"]].min().min(), table[["cosine", "high"]].max().max()
    for ax in axes:
        ax.set_ylim(min(low - 0.05, -0.05), max(high + 0.05, 0.2))
    axes[0].set_ylabel("cosine of the gradients")
    beside(
        axes[-1],
        [
            *axes[-1].get_legend_handles_labels()[0],
            line("a seed", marker="o", linestyle="", markersize=5),
            line("mean over seeds", linewidth=1),
            line("micro-batches, 95%", linewidth=4, alpha=0.4),
        ],
    )
    return fig


def over_training(table: pd.DataFrame) -> Figure:
    """Cosines over training, a panel for each stage, a line for each method and pair (means over seeds).

    Args:
        table: as for `cosines`, with the column epoch.
    """
    stages = sorted(table["stage"].unique())
    pairs = dict.fromkeys(zip(table["first"], table["second"], strict=True))
    styles = dict(zip(pairs, ("-", "--", ":", "-."), strict=False))
    fig, axes = figure(1, len(stages), (1.4 + 3.2 * len(stages), 3.4))
    for ax, stage in zip(axes, stages, strict=True):
        chosen = table[table["stage"] == stage]
        for (method, first, second), rows in chosen.groupby(["method", "first", "second"], sort=False):
            means = rows.groupby("epoch")["cosine"].mean()
            ax.plot(
                means.index, means, styles.get((first, second), "-"), marker="o", markersize=4, color=METHODS[method],
                label=f"{spoken(method)}  {first}, {second}",
            )  # fmt: skip
        ax.axhline(0, color="#444444", linewidth=1)
        ax.set(title=_stage(stage), xlabel="epochs of training", xticks=sorted(table["epoch"].unique()))
    low, high = table["cosine"].min(), table["cosine"].max()
    for ax in axes:
        ax.set_ylim(min(low - 0.05, -0.05), high + 0.05)
    axes[0].set_ylabel("cosine of the gradients")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return fig
