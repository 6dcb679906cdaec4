"""Many runs, one after another."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dhm.config import Config
from dhm.errors import RunBusy
from dhm.records.record import RunRecord
from dhm.training.loop import fit
from dhm.training.progress import Bar
from dhm.zoo import plan_of


def fit_all(configs: Sequence[Config], **options: Any) -> Iterator[RunRecord]:
    """Train runs in order and yield each finished record with a printed line of its result.

    A run that another process is training is named and passed over, so that one command started several times
    shares the work; finished runs cost nothing.

    Args:
        **options: as for `dhm.fit`.
    """
    to_train = [config for config in configs if RunRecord.of(config, options.get("runs_dir")).result is None]
    with torch.device("meta"):
        for plan in dict.fromkeys(plan_of(config) for config in to_train):
            plan.build(2)  # a wrong setting in the last run is told before the first
    with Bar("all runs", len(configs), "run", shown=options.get("progress", True) and len(configs) > 1) as bar:
        for number, config in enumerate(configs, start=1):
            head = f"[{number}/{len(configs)}]"
            try:
                record = fit(config, **options)
            except RunBusy as busy:
                bar.say(f"{head} {busy}; passed over")
                continue
            if record.writes:  # of the processes that train together, one speaks
                bar.say(f"{head} {config.name}: {summary(record)}")
            bar.advance()
            yield record


def summary(record: RunRecord) -> str:
    """A finished run in a line: after the last epoch the top-1 error of every classifier, or what a search found."""
    result = record.result
    assert result is not None, "the run is not finished"
    if "mAP" in result["last"]["heads"]["B0"]:
        found = result["last"]["heads"]["B0"]
        return f"mAP {found['mAP']:.2f}%, rank-1 {found['rank1']:.2f}% ({result['seconds']:.0f} s)"
    errors = ", ".join(f"{head} {values['top1_error']:.2f}%" for head, values in result["last"]["heads"].items())
    return f"top-1 error {errors} ({result['seconds']:.0f} s)"
