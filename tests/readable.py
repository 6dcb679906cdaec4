"""Whether a figure can be read: what is written in it, and that nothing leaves it."""

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def texts(fig: Figure) -> dict[str, list]:
    """Text -> boxes in pixels: titles, labels, legends and what is written into the axes."""
    renderer = FigureCanvasAgg(fig).get_renderer()
    fig.draw(renderer)
    shown = []
    for ax in fig.axes:
        legend = [ax.get_legend()] if ax.get_legend() else []
        shown += [*ax.texts, *(text for one in legend for text in one.get_texts())]
        if ax.axison:
            shown += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
    shown += [text for legend in fig.legends for text in legend.get_texts()]
    found: dict[str, list] = {}
    for text in shown:
        if text.get_text().strip():
            found.setdefault(text.get_text(), []).append(text.get_window_extent(renderer))
    return found


def assert_readable(fig: Figure) -> dict[str, list]:
    """Nothing that is drawn leaves the figure, and pyplot keeps no hold on it."""
    found = texts(fig)
    used, (width, height) = fig.get_tightbbox(fig.canvas.get_renderer()), fig.get_size_inches()
    assert used.x0 > -0.01
    assert used.y0 > -0.01
    assert used.x1 < width + 0.01
    assert used.y1 < height + 0.01
    assert not plt.get_fignums()
    return found
