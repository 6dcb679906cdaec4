"""Many runs, one after another."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dhm.config import Config
from dhm.errors import RunBusy
from dhm.records.record import RunRecord
from dhm.training.alone import is_trained_now
from dhm.training.loop import fit
from dhm.training.progress import Bar
from dhm.zoo import plan_of

LOOK_EVERY = 0.5
"""Seconds between two looks at a run that another process is training."""


def fit_all(configs: Sequence[Config], *, wait: bool = True, **options: Any) -> Iterator[RunRecord]:
    """Train runs and yield their finished records in order, with a printed line of each one's result.

    A run that another process is training is left to it: the next ones are trained meanwhile, so that processes share
    the work. Finished runs cost nothing.

    Args:
        wait: for such runs at the end; else they are named and passed over.
        **options: as for `dhm.fit`.
    """
    records = [RunRecord.of(config, options.get("runs_dir")) for config in configs]
    to_train = [record.config for record in records if record.result is None]
    with torch.device("meta"):
        for plan in dict.fromkeys(plan_of(config) for config in to_train):
            plan.build(2)  # a wrong setting in the last run is told before the first
    with Bar("all runs", len(configs), "run", shown=options.get("progress", True) and len(configs) > 1) as bar:
        finished: dict[int, RunRecord | None] = {}
        left, busy_ones, turn = list(range(len(configs))), set[int](), 0
        while left:
            if busy_ones.issuperset(left):
                _until_one_is_free([records[number] for number in left])
                busy_ones.clear()
            number = left.pop(0)
            head = f"[{number + 1}/{len(configs)}]"
            try:
                record = finished[number] = fit(configs[number], **options)
                if record.writes:  # of the processes that train together, one speaks
                    bar.say(f"{head} {configs[number].name}: {summary(record)}")
                bar.advance()
            except RunBusy as busy:
                if wait:
                    left.append(number)
                    busy_ones.add(number)
                else:
                    finished[number] = None
                    bar.say(f"{head} {busy}; passed over")
            while turn in finished:
                ready = finished.pop(turn)
                turn += 1
                if ready is not None:
                    yield ready


def _until_one_is_free(records: Sequence[RunRecord]) -> None:
    while all(is_trained_now(record) for record in records):
        time.sleep(LOOK_EVERY)


def summary(record: RunRecord) -> str:
    """A finished run in a line: after the last epoch the top-1 error of every classifier, or what a search found."""
    result = record.result
    assert result is not None, "the run is not finished"
    if "mAP" in result["last"]["heads"]["B0"]:
        found = result["last"]["heads"]["B0"]
        return f"mAP {found['mAP']:.2f}%, rank-1 {found['rank1']:.2f}% ({result['seconds']:.0f} s)"
    errors = ", ".join(f"{head} {values['top1_error']:.2f}%" for head, values in result["last"]["heads"].items())
    return f"top-1 error {errors} ({result['seconds']:.0f} s)"
