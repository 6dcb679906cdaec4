"""Figures: a table or record in, a matplotlib Figure out."""

from dhm.plots.curves import training
from dhm.plots.errors import ablation, errors, forest
from dhm.plots.style import save

__all__ = ["ablation", "errors", "forest", "save", "training"]
