"""Ways of doing the same thing, measured side by side in one process: what every benchmark here rests on."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

Seconds = dict[str, np.ndarray]


def interleaved(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter,
    warm_up: int = 2,
) -> Seconds:  # fmt: skip
    """Seconds of each way in each round. All ways take their turn in a round, in random order, so that a busy machine
    slows them alike.

    Args:
        clock: `time.process_time` where other processes want the cores too and nothing waits for a disk or a device.
    """
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(-warm_up, rounds):
        for way in np.random.default_rng(turn + warm_up).permutation(list(ways)):
            start = clock()
            ways[way]()
            if turn >= 0:
                seconds[way].append(clock() - start)
    return {way: np.array(values) for way, values in seconds.items()}


class Ratio(NamedTuple):
    """The median of a ratio taken within each round, with its 95 % bootstrap interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def ratio(seconds: Seconds, over: str, under: str, share: float = 1.0) -> Ratio:
    """What `over` takes as a multiple of `under`, times `share`."""
    ratios = seconds[over] / seconds[under] * share
    low, high = stats.bootstrap((ratios,), np.median, n_resamples=10_000, rng=0).confidence_interval
    return Ratio(float(np.median(ratios)), float(low), float(high))
