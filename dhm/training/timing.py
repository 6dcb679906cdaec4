"""Where the time of a run goes."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Seconds by name: of laps, and of waiting for an iterator; on top of what an earlier watch has counted."""

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self.seconds = dict(before or {})
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last lap."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def waiting(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Pass the items on and book, beside the laps, the time it takes to get them."""
        iterator = iter(items)
        while True:
            before = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - before
            yield item
