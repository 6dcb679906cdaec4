"""Noise on the shared representation: how far Eq. 11 and the full second order are from the truth."""

from functools import lru_cache

import ipywidgets
import numpy as np

from dhm.analysis.theory import eq11, smooth
from dhm.errors import InputError
from dhm.plots.eq11 import parting
from dhm.widgets.view import WIDE, View, explorer, pick, row, slide

SIGMAS = tuple(float(sigma) for sigma in np.geomspace(0.02, 1.0, 25))
SMALL = 0.1
"""Sizes of noise up to this one give the orders."""


_course = lru_cache(maxsize=64)(smooth.course)


def view(sigma: float = 0.3, quantity: str = "value", student: int = 0, teacher: int = 1) -> View:
    """Truth and both expansions of two smooth classifiers on three points of a plane.

    Args:
        sigma: size of the noise.
        quantity: a name of `dhm.analysis.theory.smooth.QUANTITIES`.
        student, teacher: seeds of the classifiers.

    Raises:
        InputError: sigma is not positive, or the quantity not known, or 0 at any noise.
    """
    if not 0 < sigma <= SIGMAS[-1]:
        raise InputError(f"sigma must be above 0 and at most {SIGMAS[-1]:g}, not {sigma}")
    if quantity == "student's gradient" and student == teacher:
        raise InputError("a student that is its own teacher has a gradient of 0 at any noise; take two classifiers")
    found = _course(quantity, student, teacher, SIGMAS)
    here = smooth.course(quantity, student, teacher, [sigma])
    small = [i for i, s in enumerate(SIGMAS) if s <= SMALL]
    orders = {
        kind: eq11.slope([SIGMAS[i] for i in small], [found.missed(kind)[i] for i in small]) for kind in eq11.KINDS
    }
    truth = here.along_start(here.truth)[0]
    off = {kind: 100 * abs(here.along_start(here.expanded(kind))[0] / truth - 1) for kind in eq11.KINDS}
    words = (
        f"At σ = {sigma:.2f}, Eq. 11 as printed is {off['printed']:.3g} % off the truth, the full second order "
        f"{off['full']:.3g} %. For small noise the first misses by σ^{orders['printed']:.2f}, the second by "
        f"σ^{orders['full']:.2f}."
    )
    return View(words, parting(found, sigma, quantity))


def explore() -> ipywidgets.VBox:
    """Move the size of the noise, choose the quantity and the classifiers."""
    controls = {
        "sigma": slide("noise σ", 0.02, SIGMAS[-1], 0.3, 0.01),
        "quantity": pick("quantity", list(smooth.QUANTITIES), "value"),
        "student": ipywidgets.BoundedIntText(value=0, min=0, max=99, description="student no.", style=WIDE),
        "teacher": ipywidgets.BoundedIntText(value=1, min=0, max=99, description="teacher no.", style=WIDE),
    }
    controls["sigma"].layout.width = "300px"
    for name in ("student", "teacher"):
        controls[name].layout.width = "150px"
    return explorer(controls, view, [row(*controls.values())])
