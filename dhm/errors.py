"""The exceptions a user is meant to read."""


class InputError(ValueError):
    """Something the user gave is wrong: one sentence that names the value and what would be right."""


class RunBusy(InputError):
    """Another process is training this run."""


class NonFiniteLoss(RuntimeError):
    """A loss term became NaN or infinite; the sentence names epoch, step and term."""


class Stopped(KeyboardInterrupt):
    """A training was asked to stop, by a keyboard or by what ends a job.

    Attributes:
        signal: the number of the signal.
        saved: whether it stands at the step it stopped at, or at its last checkpoint.
    """

    def __init__(self, signal: int, saved: bool = True) -> None:
        super().__init__(f"stopped; the same command goes on from {'here' if saved else 'the last checkpoint'}")
        self.signal, self.saved = signal, saved
