"""A training that is asked to stop: it ends its step, saves, and goes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from dhm.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Of a keyboard (or of a notebook's stop button), and of what ends a job on a cluster."""


@dataclass
class Request:
    """The signal by which a stop has been asked for, None as long as none has been."""

    signal: int | None = None


@contextmanager
def heard() -> Iterator[Request]:
    """Take note of a first signal instead of breaking off at once; a second one breaks off.

    Only the main thread of a process hears signals; in any other nothing changes.

    Raises:
        Stopped: on a second signal, or if the processes that read images, which the first has ended, are missed.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.signal is not None:
            raise Stopped(number, saved=False)
        request.signal = number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    except Exception:
        if request.signal is None:
            raise
        raise Stopped(request.signal, saved=False) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
