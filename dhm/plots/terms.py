"""The terms of the loss on one image: what the classifiers say, and what each term pulls at."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.special import softmax

from dhm.analysis.theory.terms import Term
from dhm.plots.style import HEADS, figure


def terms(logits: Mapping[str, Sequence[float]], target: int, found: Sequence[Term]) -> Figure:
    """Left the predictions of each classifier, the true class framed; right what each term asks of every logit.

    A cell holds minus the derivative, the way gradient descent moves the logit: blue up, red down. An empty cell is an
    exact zero: that classifier receives nothing from the term.
    """
    heads = list(logits)
    classes = len(next(iter(logits.values())))
    fig, axes = figure(1, 2, (9.6, 1.9 + 0.3 * (len(found) + 1)))
    axes[0].get_gridspec().set_width_ratios([1, 1.3])  # type: ignore[union-attr]
    _predictions(axes[0], logits, target)
    pull = -np.array([[value for head in heads for value in term.gradients[head]] for term in found])
    pull = np.vstack([pull, pull.sum(axis=0)])
    ax = axes[1]
    limit = max(float(np.abs(pull).max()), 1e-9)
    ax.imshow(pull, cmap="RdBu", vmin=-1.4 * limit, vmax=1.4 * limit, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(pull):
        if value:
            ax.text(column, row, f"{value:+.2f}", ha="center", va="center", fontsize=8, color="#222222")
    for edge in range(1, len(heads)):
        ax.axvline(classes * edge - 0.5, color="#444444", linewidth=1.2)
    ax.axhline(len(found) - 0.5, color="#444444", linewidth=1.2)
    ax.grid(False)
    ax.set_yticks(range(len(pull)), [*(f"{term.spoken}   {term.value:.3f}" for term in found), "sum"])
    ax.set_xticks(range(pull.shape[1]), [str(k) for _ in heads for k in range(classes)])
    for i, (head, colour) in enumerate(zip(heads, HEADS, strict=False)):
        ax.text((i + 0.5) / len(heads), 1.02, f"to {head}", transform=ax.transAxes, ha="center", va="bottom",
                color=colour, weight="bold")  # fmt: skip
    ax.set_xlabel("logit of class (cells: the way descent moves it)")
    return fig


def _predictions(ax: Axes, logits: Mapping[str, Sequence[float]], target: int) -> None:
    """Probabilities as bars, a group a class."""
    for i, (head, colour) in enumerate(zip(logits, HEADS, strict=False)):
        probability = softmax(logits[head])
        at = np.arange(len(probability)) + 0.27 * (i - (len(logits) - 1) / 2)
        ax.bar(at, probability, width=0.25, color=colour, label=head)
        for x, p in zip(at, probability, strict=True):
            ax.text(x, p + 0.015, f"{p:.2f}", ha="center", va="bottom", fontsize=8, color=colour)
    classes = len(next(iter(logits.values())))
    ax.add_patch(Rectangle((target - 0.48, 0), 0.96, 1.11, fill=False, edgecolor="#222222", linewidth=1.4))
    ax.set(ylim=(0, 1.12), ylabel="probability", xticks=range(classes))
    ax.set_xticklabels([f"class {k}" + (", true" if k == target else "") for k in range(classes)])
    ax.legend(frameon=False, ncols=len(logits), loc="lower center", bbox_to_anchor=(0.5, 1.0))
