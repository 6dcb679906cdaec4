"""Three classifiers, three classes: every term of the loss, and the gradient it sends to whom."""

from collections.abc import Mapping, Sequence

import ipywidgets

from dhm.analysis.theory.terms import dissect, frame
from dhm.analysis.variants import spoken
from dhm.config import DIRECTIONS, METHODS
from dhm.plots.style import HEADS
from dhm.plots.terms import terms
from dhm.widgets.view import View, explorer, pick, row, slide

LOGITS = {"B0": (2.0, 0.5, -1.0), "B1": (0.5, 1.5, -0.5), "B2": (0.0, 0.2, 0.6)}
"""Three classifiers of different minds: the deepest right and sure, one wrong, one undecided."""


def view(
    logits: Mapping[str, Sequence[float]] = LOGITS, target: int = 0, method: str = "dhm", direction: str = "both",
    temperature: float = 1.0,
) -> View:  # fmt: skip
    """The loss of one image, taken apart; the arguments are those of `dhm.analysis.theory.terms.dissect`."""
    found = dissect(logits, target, method, direction, temperature)
    mimicking = [term for term in found if term.name.startswith("kl/")]
    words = f"The loss is {sum(term.value for term in found):.3f}, of which mimicking is "
    words += f"{sum(term.value for term in mimicking):.3f}. "
    if mimicking:
        silent = sum(_reaches_only_its_student(term.name, term.gradients) for term in mimicking)
        words += f"{silent} of {len(mimicking)} mimicking terms reach their student alone: the teacher is a constant."
    return View(words, terms(logits, target, found), frame(found))


def _reaches_only_its_student(name: str, gradients: Mapping[str, Sequence[float]]) -> bool:
    student = name.removeprefix("kl/").partition("<-")[0]
    return not any(any(values) for head, values in gradients.items() if head != student)


def explore() -> ipywidgets.VBox:
    """Move the logits, choose method, direction and temperature."""
    sliders = {
        head: [slide(f"{head}, class {k}", -4, 4, z) for k, z in enumerate(values)] for head, values in LOGITS.items()
    }
    choices = {
        "method": pick("method", [(spoken(name), name) for name in METHODS], "dhm"),
        "direction": pick("direction", [(name.replace("_", "-"), name) for name in DIRECTIONS], "both"),
        "target": pick("true class", [0, 1, 2], 0),
        "temperature": slide("temperature", 0.5, 5, 1),
    }
    columns = []
    for colour, column in zip(HEADS, sliders.values(), strict=False):
        for slider in column:
            slider.style.handle_color = colour
        columns.append(ipywidgets.VBox(column))
    flat = {f"{head}{k}": slider for head, column in sliders.items() for k, slider in enumerate(column)}

    def draw(**values: float) -> View:
        logits = {head: [values.pop(f"{head}{k}") for k in range(3)] for head in LOGITS}
        return view(logits, **values)  # type: ignore[arg-type]

    return explorer({**choices, **flat}, draw, [row(*choices.values()), row(*columns)])
