"""One process at a time trains a run: it holds the lock in the folder of the record."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout
from lightning_fabric import Fabric

from dhm.errors import InputError, RunBusy
from dhm.records.record import RunRecord

BUSY = "{} is being trained by another process"


def is_trained_now(record: RunRecord) -> bool:
    """Whether a process holds the record, to train the run.

    Raises:
        InputError: as `alone`.
    """
    lock = _held(record)
    if lock is not None:
        lock.release()
    return lock is None


@contextmanager
def alone(record: RunRecord, fabric: Fabric) -> Iterator[None]:
    """Hold the record against a second training.

    Raises:
        RunBusy: another process is training this run.
        InputError: the folder cannot be locked, as where a file system has no locks.
    """
    first = fabric.is_global_zero
    lock = _held(record) if first else None
    if fabric.broadcast(first and lock is None):
        raise RunBusy(BUSY.format(record.folder))
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _held(record: RunRecord) -> FileLock | None:
    """The record's lock, now held by this process; None if another one holds it."""
    lock = FileLock(record.folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        raise InputError(
            f"{lock.lock_file} cannot be locked ({error.strerror}); run records must lie where files can be locked"
        ) from None
    return lock
