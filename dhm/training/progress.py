"""Progress of long work: a bar in a terminal, one line that is replaced in Jupyter, a line now and then in a log."""

import sys
import time
from typing import Any

from tqdm import tqdm

REFRESH = {"terminal": 0.1, "jupyter": 0.5, "log": 60.0}
"""Seconds between two looks at the bar."""


def place() -> str:
    """Where progress is shown: "jupyter", "terminal" or "log"."""
    if "ipykernel" in sys.modules:
        from IPython import get_ipython

        if getattr(get_ipython(), "kernel", None) is not None:
            return "jupyter"
    return "terminal" if sys.stderr.isatty() else "log"


class Bar:
    """One bar, a context manager that leaves no trace when it ends.

    Args:
        label: what is under way.
        total, start: steps in all, and those done before.
        unit: what a step is called.
        shown: False for silence.
    """

    _open = 0  # bars that are shown now, one inside the other

    def __init__(self, label: str, total: int, unit: str, start: int = 0, shown: bool = True) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, start
        self._first, self._note = start, ""
        self._place = place() if shown else "nowhere"
        self._started = self._looked = time.monotonic()
        self._bar: Any = None
        if self._place == "terminal":
            self._bar = tqdm(total=total, initial=start, desc=label, unit=unit, leave=False, dynamic_ncols=True)
        elif self._place == "jupyter":
            self._bar = _output(self._mime())
        Bar._open += 1

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        Bar._open -= 1
        if self._place == "terminal":
            self._bar.close()
        elif self._place == "jupyter":
            self._bar.update({"text/plain": ""}, raw=True)

    def advance(self, note: str = "") -> None:
        """One step is done; a note replaces the one before."""
        self.done += 1
        self._note = note or self._note
        if self._place == "terminal":
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
        elif self._place != "nowhere" and time.monotonic() - self._looked > REFRESH[self._place]:
            self._looked = time.monotonic()
            if self._place == "jupyter":
                self._bar.update(self._mime(), raw=True)
            else:
                print(self.text(), file=sys.stderr, flush=True)

    def say(self, words: str) -> None:
        """Print a line to standard output, above the bars of a terminal."""
        if self._place == "terminal":
            tqdm.write(words)
        else:
            print(words, flush=True)

    def text(self) -> str:
        """The bar in words, with the time left at the pace so far."""
        words = f"{self.label}: {self.unit} {self.done:,} of {self.total:,}"
        if self.done > self._first:
            left = (time.monotonic() - self._started) / (self.done - self._first) * (self.total - self.done)
            words += f", {int(left // 60)}:{int(left % 60):02d} left"
        return f"{words}, {self._note}" if self._note else words

    def _mime(self) -> dict[str, str]:
        bar = f'<progress value="{self.done}" max="{self.total}" style="width: 12em"></progress>'
        return {"text/plain": self.text(), "text/html": f"<div>{bar} <code>{self.text()}</code></div>"}


_outputs: dict[tuple[int, int], Any] = {}


def _output(content: dict[str, str]) -> Any:
    """The output of a Jupyter cell for a bar at this depth; bars that follow each other in a cell share it."""
    from IPython import get_ipython
    from IPython.display import display

    key = (getattr(get_ipython(), "execution_count", 0), Bar._open)
    if key in _outputs:
        _outputs[key].update(content, raw=True)
    else:
        _outputs[key] = display(content, raw=True, display_id=True)
    return _outputs[key]
