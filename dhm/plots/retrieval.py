"""What a search finds: queries with the gallery images that rank highest."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dhm.analysis.variants import spoken
from dhm.data import Images, load_test
from dhm.metrics.retrieval import JUNK, Ranking
from dhm.plots.style import METHODS, figure
from dhm.records.record import RunRecord

RIGHT, WRONG, QUERY = "#009e73", "#d62728", "#222222"
"""Colours of frames; a tick or a cross beside the place says the same to whom green and red look alike."""


def ranked_gallery(pixels: torch.Tensor, rankings: Mapping[str, Ranking], queries: Sequence[int]) -> Figure:
    """Queries with their nearest gallery images from left to right, for each query a row a method.

    Matches are framed green and ticked, the others red and crossed; the average precision stands at the right.

    Args:
        pixels: (Q + G, 3, H, W) bytes of the test images: the queries, then the gallery.
        rankings: by method, drawn from top to bottom, e.g. baseline above DHM.
        queries: which to draw, by index.
    """
    methods = [*(m for m in METHODS if m in rankings), *(m for m in rankings if m not in METHODS)]
    total = len(rankings[methods[0]].first_match)
    shown = rankings[methods[0]].found.shape[1]
    height, width = pixels.shape[-2:]
    rows = [(query, method) for query in queries for method in methods]
    size = 1.6 + 0.62 * (shown + 1), 0.2 + (0.6 * height / width + 0.16) * len(rows)
    fig, axes = figure(len(rows), shown + 1, size)
    for row, (query, method) in enumerate(rows):
        ranking, places = rankings[method], axes[row * (shown + 1) : (row + 1) * (shown + 1)]
        _image(places[0], pixels[query], QUERY, f"query {query}")
        places[0].set_ylabel(spoken(method), rotation=0, ha="right", va="center")
        for place, (ax, index) in enumerate(zip(places[1:], ranking.found[query], strict=True)):
            if index == JUNK:  # a gallery of fewer images
                ax.set_axis_off()
                continue
            right = bool(ranking.right[query, place])
            sign = "✓" if right else "✗"
            _image(ax, pixels[total + int(index)], RIGHT if right else WRONG, f"{place + 1} {sign}")
        places[-1].annotate(
            f"AP {100 * ranking.average_precision[query]:.0f}%", (1.15, 0.5), xycoords="axes fraction", va="center"
        )
    return fig


def searches(records: Sequence[RunRecord]) -> Figure:
    """What the first of some runs and its like by other methods find: four queries with their nearest images, the
    baseline above DHM where both are there."""
    first = records[0].config
    found = {
        record.config.method: record.found().rankings["euclidean"]
        for record in records
        if record.config.replace(method=first.method) == first
    }
    shown = [method for method in found if method in ("baseline", "dhm")] or list(found)
    images, _ = load_test(first)
    assert isinstance(images, Images), "images of people are kept in memory"
    queries = telling_queries(found[shown[0]], found[shown[-1]])
    return ranked_gallery(images.pixels, {method: found[method] for method in shown}, queries)


def _image(ax: Axes, pixels: torch.Tensor, colour: str, title: str) -> None:
    """One image in a frame."""
    ax.imshow(pixels.permute(1, 2, 0).cpu().numpy())
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=8, color=colour, pad=2)
    ax.grid(False)
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, edgecolor=colour, linewidth=4))


def telling_queries(first: Ranking, second: Ranking) -> list[int]:
    """Four queries that show a difference without choosing a side: at even steps from the largest loss of average
    precision to the largest gain of `second` over `first`."""
    order = np.argsort(second.average_precision - first.average_precision, kind="stable")
    return [int(order[i]) for i in np.linspace(0, len(order) - 1, 4).round().astype(int)]
