"""What a training costs against what it comes to."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from dhm.analysis.variants import EQUAL, method_of, spoken
from dhm.plots.style import METHODS, beside, figure


def price(panels: dict[str, pd.DataFrame]) -> Figure:
    """Top-1 error of B0 against multiply-adds of the whole training, a panel for each table of `price.prices`.

    Bars are standard deviations over several seeds; the hollow dot is the plain network at DHM's price.
    """
    fig, axes = figure(1, len(panels), (1.8 + 4.2 * len(panels), 3.8))
    shown: dict[str, Any] = {}
    for ax, (title, table) in zip(axes, panels.items(), strict=True):
        for row in table.reset_index().to_dict("records"):
            name, error = row["variant"], row["error"]
            colour = METHODS[method_of(name)]
            shown[name] = ax.errorbar(
                row["training"], error.mean, yerr=error.std, fmt="o", capsize=3, color=colour, label=spoken(name),
                markerfacecolor="white" if name.endswith(EQUAL) else colour,
            )  # fmt: skip
        ax.set(title=title, ylabel="top-1 error of B0 (%)")
        ax.set_xlabel("multiply-adds of the whole training", loc="left")  # right of it stands the power of ten
        ax.set_xlim(0, 1.1 * table["training"].max())
        ax.ticklabel_format(axis="x", useMathText=True)
    beside(axes[-1], list(shown.values()))
    return fig
