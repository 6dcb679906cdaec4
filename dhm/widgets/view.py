"""What an explorer shows, and the widgets it is shown in."""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from dhm.errors import InputError

DOTS_PER_INCH, PIXELS_PER_INCH = 150, 88
"""Of the image itself, and of its place on the page: finer than the page, so that it stays sharp on fine screens."""
WIDE = {"description_width": "initial"}
"""Style of a control: its description is never cut."""


@dataclass(frozen=True)
class View:
    """A sentence or two, a figure, a table; shown as they are in an ordinary cell."""

    words: str
    figure: Figure | None = None
    table: pd.DataFrame | None = None

    def _ipython_display_(self) -> None:
        display(Markdown(self.words))
        for part in (self.figure, self.table):
            if part is not None:
                display(part)


class Screen:
    """Widgets a view is put on; what changes is replaced in place, so that the page does not jump."""

    def __init__(self) -> None:
        self.words, self.table = ipywidgets.HTML(), ipywidgets.HTML()
        self.image = ipywidgets.Image(format="png", layout={"display": "none"})
        self.parts = (self.words, self.image, self.table)

    def show(self, view: View) -> None:
        """Replace what stands there."""
        image = b"" if view.figure is None else png(view.figure)  # first, so that all parts change together
        self.words.value = f'<div style="line-height: 1.5; max-width: 66em">{html.escape(view.words)}</div>'
        if view.figure is not None:
            self.image.value = image
            self.image.layout.width = f"{PIXELS_PER_INCH * view.figure.get_figwidth():.0f}px"
            self.image.layout.max_width, self.image.layout.height = "100%", "auto"
        self.image.layout.display = "none" if view.figure is None else "block"
        # The class is JupyterLab's for tables in outputs: its fonts and both of its themes.
        frame = '<div class="jp-RenderedHTMLCommon" style="width: max-content; max-width: 100%">{}</div>'
        self.table.value = "" if view.table is None else frame.format(view.table.to_html(border=0))


def png(figure: Figure) -> bytes:
    """A figure as the bytes of an image, on white, so that it reads on dark pages too."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    return buffer.getvalue()


def told(view: Callable[..., View], **values: Any) -> View:
    """A view, or the sentence that says why it cannot be."""
    try:
        return view(**values)
    except InputError as error:
        return View(str(error))


def explorer(
    controls: Mapping[str, ipywidgets.ValueWidget], view: Callable[..., View],
    rows: Sequence[ipywidgets.Widget] | None = None,
) -> ipywidgets.VBox:  # fmt: skip
    """Controls above, below what `view` makes of their values; drawn again when one moves.

    Args:
        controls: argument of `view` -> the control that holds its value.
        rows: the controls as they are arranged; one row by default.
    """
    screen = Screen()

    def draw(_: Any = None) -> None:
        screen.show(told(view, **{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(draw, "value")
    draw()
    return ipywidgets.VBox([*(rows or [row(*controls.values())]), *screen.parts])


def row(*parts: ipywidgets.Widget) -> ipywidgets.HBox:
    """Controls beside each other, on more lines where the page is narrow."""
    return ipywidgets.HBox(parts, layout={"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 12px"})


def pick(description: str, options: Sequence[Any], value: Any, width: str = "max-content") -> ipywidgets.Dropdown:
    """One of several, from a list that opens."""
    return ipywidgets.Dropdown(
        options=options, value=value, description=description, style=WIDE, layout={"width": width}
    )


def slide(description: str, low: float, high: float, value: float, step: float = 0.1) -> ipywidgets.FloatSlider:
    """A number between two others."""
    return ipywidgets.FloatSlider(
        value=value, min=low, max=high, step=step, description=description, style=WIDE, readout_format=".2f",
        layout={"width": "268px"},
    )  # fmt: skip
