"""Interactive views for Jupyter, one a module: `view(...)` is what is shown, `explore()` the same with controls.

`view` needs no widgets and stands in an ordinary cell; an explorer lives as long as its kernel.
"""

from dhm.widgets import expansion, live, loss, network, runs

__all__ = ["expansion", "live", "loss", "network", "runs"]
