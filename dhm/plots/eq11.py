"""Figures of the Taylor expansion behind Eq. 11."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dhm.analysis.theory.smooth import Course
from dhm.analysis.variants import spoken
from dhm.plots.style import METHODS, figure

EXPANSIONS = {"printed": ("Eq. 11 as printed", "#d55e00", "o"), "full": ("full second order", "#0072b2", "s")}
PARTS = {
    "gradient": ("gradient term of Eq. 11", "#d55e00"),
    "student": ("student's curvature", "#56b4e9"),
    "teacher": ("teacher's curvature", "#009e73"),
}

PERTURBATIONS = {
    "real augmentation, finite": "real augmentation",
    "isotropic, finite": "isotropic noise, finite size",
    "isotropic, autodiff": "isotropic noise, autodiff",
}
"""Noise and way of measuring, and how a panel is called."""


def residuals(
    sigmas: Sequence[float], panels: Mapping[str, Mapping[str, tuple[Sequence[float], float]]],
    errors: Mapping[str, Sequence[float]] | None = None,
) -> Figure:  # fmt: skip
    """Distance of both expansions from the expectation over sigma, on logarithmic axes.

    Args:
        panels: title -> "printed" or "full" -> (residuals, fitted slope).
        errors: title -> standard error of the expectation at each sigma, drawn as the level below which a residual
            says nothing.
    """
    fig, axes = figure(1, len(panels), (4.6 * len(panels), 4.5))
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for kind, (values, fitted) in curves.items():
            label, colour, marker = EXPANSIONS[kind]
            ax.loglog(sigmas, values, marker, color=colour, label=f"{label}: slope {fitted:.2f}")
            line = np.exp(np.mean(np.log(values)) + fitted * (np.log(sigmas) - np.mean(np.log(sigmas))))
            ax.loglog(sigmas, line, color=colour, linewidth=1)
        if errors and title in errors:
            ax.loglog(sigmas, errors[title], "--", color="#888888", label="standard error of sampling")
        ax.set(title=title, xlabel="σ", ylabel="|expectation − expansion|")
        ax.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas])
        ax.minorticks_off()
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return fig


def term_sizes(measured: pd.DataFrame) -> Figure:
    """The three second-order parts relative to the zeroth-order term, a panel for each of `PERTURBATIONS`.

    Args:
        measured: of `branching.measure_pairs`; drawn are means over seeds at the augmentation's own size.
    """
    rows = measured[measured["scale"] == 1].assign(perturbation=lambda t: t["noise"] + ", " + t["how"])
    groups = rows.groupby(["perturbation", "method", "pair", "part"], sort=False)
    table = groups[["relative", "error"]].mean().reset_index()
    perturbations = [name for name in PERTURBATIONS if name in set(table["perturbation"])]
    methods = [method for method in METHODS if method in set(table["method"])]
    groups = [(method, pair) for method in methods for pair in table["pair"].unique()]
    fig, axes = figure(1, len(perturbations), (1.2 + 4.3 * len(perturbations), 0.9 + 0.62 * len(groups)))
    for ax, perturbation in zip(axes, perturbations, strict=True):
        chosen = table[table["perturbation"] == perturbation].set_index(["method", "pair", "part"])
        for offset, (part, (label, colour)) in enumerate(PARTS.items()):
            rows = [(i, chosen.loc[(*group, part)]) for i, group in enumerate(groups) if (*group, part) in chosen.index]
            ax.barh(
                [i + 0.27 * (offset - 1) for i, _ in rows], [row["relative"] for _, row in rows], height=0.25,
                xerr=[row["error"] for _, row in rows], color=colour, label=label,
                error_kw={"linewidth": 1, "ecolor": "#444444"},
            )  # fmt: skip
        ax.axvline(0, color="#444444", linewidth=1)
        ax.set(title=PERTURBATIONS[perturbation], xlabel="relative to the zeroth-order term")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set(yticks=range(len(groups)), ylim=(len(groups) - 0.5, -0.5))
        ax.set_yticklabels([f"{spoken(method)}  {pair}" for method, pair in groups] if ax is axes[0] else [])
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return fig


def parting(course: Course, sigma: float, quantity: str = "value") -> Figure:
    """How both expansions part from the truth as the noise grows; a line marks the size in question.

    Left the part along what the quantity is without noise, relative to it; right the distance from the truth.
    """
    fig, axes = figure(1, 2, (9.6, 3.9))
    axes[0].plot(course.sigmas, course.along_start(course.truth), color="#222222", linewidth=2, label="truth")
    start = course.terms[0].expand_as(course.truth)
    axes[0].plot(course.sigmas, course.along_start(start), ":", color="#888888", label="without noise")
    for kind, (label, colour, _) in EXPANSIONS.items():
        axes[0].plot(course.sigmas, course.along_start(course.expanded(kind)), "--", color=colour, label=label)
        axes[1].loglog(course.sigmas, course.missed(kind), color=colour, label=label)
    truth = [1.0, *course.along_start(course.truth)]
    margin = max(max(truth) - min(truth), 0.02)
    axes[0].set(title=f"{quantity}, relative to that without noise", xlabel="σ", xlim=(0, max(course.sigmas)))
    axes[0].set_ylim(min(truth) - margin, max(truth) + margin)
    axes[1].set(title="distance from the truth, all points", xlabel="σ", ylabel="|expectation − expansion|")
    for ax in axes:
        ax.axvline(sigma, color="#444444", linewidth=1)
        ax.legend(framealpha=1, edgecolor="white")
    return fig
