"""The training loop: `fit(config)` -> run record. The only place where networks are trained."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.loggers import Logger

from dhm.branches import MAIN
from dhm.config import Config
from dhm.errors import InputError, RunBusy, Stopped
from dhm.metrics import main_error
from dhm.records.environment import describe
from dhm.records.record import RunRecord
from dhm.records.unfinished import take_over
from dhm.training.alone import BUSY, alone, is_trained_now
from dhm.training.ledger import Ledger, know_nothing
from dhm.training.parallel import connect
from dhm.training.position import resume, save, unreadable
from dhm.training.progress import Bar
from dhm.training.step import Trainer, prepare
from dhm.training.stopping import heard
from dhm.training.threads import by_work
from dhm.training.timing import Stopwatch

LOOK_AFTER = 3
"""Epochs after which a run that has learned nothing is told."""


def fit(
    config: Config, *, runs_dir: str | Path | None = None, data_dir: str | Path | None = None, download: bool = False,
    accelerator: str = "auto", accumulate: int = 1, workers: int | None = None, tensorboard: bool = False,
    progress: bool = True, checkpoint_every: float = 60.0, resume_from: str | Path | None = None, compile: bool = False,
) -> RunRecord:  # fmt: skip
    """Train a configuration and return its record; a finished run is returned as it is, a stopped one goes on.

    Started by `torchrun`, the processes train together, and the first of them writes the record.

    Args:
        runs_dir: where records are kept, see `dhm.paths.runs_dir`.
        data_dir: where data sets are, see `dhm.paths.data_dir`.
        download: fetch CIFAR-100, or torchvision's weights, if they are missing.
        accelerator: "cpu", "cuda" or "auto".
        accumulate: a batch runs as so many shards, one after the other, to fit a small device; batch norm then sees
            the shards, else nothing changes but rounding.
        workers: processes that read streamed images; by default one a core, at most 8. No result depends on it.
        tensorboard: write curves for TensorBoard too, into the record's folder.
        progress: show a bar.
        checkpoint_every: seconds of training that a killed run may lose.
        resume_from: a folder with this run unfinished, from another machine, to go on with where `runs_dir` has no
            checkpoint of it; by default `data/unfinished` is looked into.
        compile: run whole shards of a batch captured, see `dhm.training.capture`. The run is the same up to rounding,
            so it may be begun eager and gone on with compiled, or the other way round.

    Raises:
        InputError: the configuration cannot be trained here; nothing was changed.
        RunBusy: another process is training this run.
        NonFiniteLoss: a loss term became NaN or infinite.
        Stopped: SIGINT or SIGTERM asked for it; the step was ended and all is saved.
    """
    record = RunRecord.of(config, runs_dir)
    fabric = connect(accelerator, config.precision, [_tensorboard(record)] if tensorboard else [])
    record = replace(record, writes=fabric.is_global_zero)
    if fabric.broadcast(record.result is not None):
        return record
    if fabric.broadcast(fabric.is_global_zero and record.begun and is_trained_now(record)):  # before much is prepared
        raise RunBusy(BUSY.format(record.folder))
    with torch.random.fork_rng(devices=[]):
        trainer = prepare(
            config, fabric, data_dir=data_dir, download=download, accumulate=accumulate, workers=workers,
            compile=compile,
        )  # fmt: skip
        record.create()
        try:
            with alone(record, fabric), by_work(trainer) as threads:
                if not fabric.broadcast(record.result is not None):  # another process may have finished it meanwhile
                    record.sweep()
                    take_over(record, resume_from)
                    fabric.barrier()  # until the checkpoint is there, for every process
                    _train(trainer, record, threads, progress, checkpoint_every)
        finally:
            for logger in fabric.loggers:
                logger.finalize("finished")
    return record


def _tensorboard(record: RunRecord) -> Logger:
    try:
        from lightning_fabric.loggers import TensorBoardLogger

        return TensorBoardLogger(record.folder, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise InputError("curves for TensorBoard need the package tensorboard: pip install tensorboard") from None


def _train(trainer: Trainer, record: RunRecord, threads: int, progress: bool, checkpoint_every: float) -> None:
    config, fabric, train = trainer.config, trainer.fabric, trainer.data.train
    seen = trainer.data.summary()
    at = resume(trainer, record, seen)
    here = {
        **describe(fabric.device), "devices": fabric.world_size, "accumulate": trainer.accumulate,
        "compiled": trainer.compiled, "data": seen, "origin": trainer.data.origin, "from": [at.epoch, at.step],
    }  # fmt: skip
    at.starts = [*(record.environment or at.starts), here]
    record.write_json("env.json", at.starts)
    steps = train.steps(config.batch_size)
    flush_every = 1 if fabric.device.type == "cpu" else 50
    saved, note = time.perf_counter(), ""
    shown = progress and fabric.is_global_zero
    host = f" ({threads} thread{'s' * (threads > 1)})" if fabric.device.type == "cpu" else ""
    whole = Bar(config.name + host, config.epochs * steps, "step", at.epoch * steps + at.step, shown)
    with heard() as stop, whole as bar:

        def due() -> tuple[bool, int | None]:
            """Whether a checkpoint is, and the signal by which a stop has been asked for; to all processes the same."""
            return fabric.broadcast((time.perf_counter() - saved > checkpoint_every, stop.signal))

        while at.epoch < config.epochs:
            for group in trainer.optimizer.param_groups:
                group["lr"] = config.lr_at(at.epoch)
            ledger, watch = Ledger(at.epoch, at.sums, fabric.world_size), Stopwatch(at.seconds)
            trainer.begin(at.epoch)
            batches = watch.waiting("data", trainer.batches(at.epoch, at.step))
            for step, (images, labels) in enumerate(batches, start=at.step):
                ledger.add(step, trainer.step(at.epoch, step, images, labels))
                bar.advance(note)
                if (step + 1) % flush_every == 0:
                    ledger.flush()
                    late, asked = due()
                    if step + 1 < steps and (late or asked):
                        watch.lap("train")
                        at.step, at.sums, at.seconds = step + 1, ledger.totals(), watch.seconds
                        saved = save(trainer, record, at)
                        if asked:
                            raise Stopped(asked)
            means = ledger.means()
            watch.lap("train")
            predictions = trainer.test()
            watch.lap("test")
            errors = predictions.summary()
            at.unreadable = unreadable(trainer)
            at.history.append(
                {"epoch": at.epoch, "lr": config.lr_at(at.epoch), "train": means, "test": errors,
                 "seconds": watch.seconds, "unreadable": len(at.unreadable),
                 **({} if trainer.mimicking is None else {"mimicking": trainer.mimicking})}
            )  # fmt: skip
            record.write_metrics(at.history)
            fabric.log_dict(_curves(at.history[-1]), step=at.epoch)
            error = main_error(errors[MAIN])
            better = at.best is None or error < main_error(at.best["heads"][MAIN])
            if better:
                at.best = {"epoch": at.epoch, "heads": errors}
                record.write_checkpoint("best", {"net": trainer.net.state_dict(), "epoch": at.epoch})
                record.write_predictions("best", predictions)
            at.epoch, at.step, at.sums, at.seconds = at.epoch + 1, 0, None, {}
            if at.epoch == config.epochs:
                record.write_predictions("last", predictions)
            # what is kept of the best epoch must not be ahead of where a killed run goes on
            late, asked = due()
            if better or at.epoch == config.epochs or late or asked:
                saved = save(trainer, record, at)
            if asked and at.epoch < config.epochs:
                raise Stopped(asked)
            note = f"epoch {at.epoch}, B0 error {error:.1f}%"
            if shown and at.epoch == LOOK_AFTER and know_nothing(means, len(trainer.data.classes)):
                bar.say(
                    f"{config.name}: after {at.epoch} epochs all classifiers agree on the uniform prediction; a lower "
                    f"learning rate than {config.lr:g} leaves it sooner"
                )
    record.finish(
        {
            "last": {"epoch": at.history[-1]["epoch"], "heads": at.history[-1]["test"]},
            "best": at.best,
            "seconds": sum(line["seconds"]["train"] + line["seconds"]["test"] for line in at.history),
            "parameters": {
                owner: sum(p.numel() for p in group) for owner, group in trainer.net.parameter_groups().items()
            },
            "data": seen,
            "normalisation": {"mean": train.mean.tolist(), "std": train.std.tolist()},  # for who ships the network
            "unreadable": at.unreadable,
        },
    )
    fabric.barrier()  # until the record is whole, for every process
    asked = fabric.broadcast(stop.signal)
    if asked:  # in the last epoch: what comes after this run is not to be begun
        raise Stopped(asked)


def _curves(line: dict[str, Any]) -> dict[str, float]:
    """An epoch's figures under the names of TensorBoard's curves."""
    test = {f"test/{head}/{name}": value for head, errors in line["test"].items() for name, value in errors.items()}
    return {"lr": line["lr"], **{f"train/{name}": value for name, value in line["train"].items()}, **test}
