"""Figures: a table or record in, a matplotlib Figure out."""

from dhm.plots.curves import ranges, training
from dhm.plots.errors import ablation, errors, forest
from dhm.plots.price import price
from dhm.plots.style import show

__all__ = ["ablation", "errors", "forest", "price", "ranges", "show", "training"]
