"""The exceptions a user is meant to read."""


class InputError(ValueError):
    """Something the user gave is wrong: one sentence that names the value and what would be right."""


class RunBusy(InputError):
    """Another process is training this run."""


class NonFiniteLoss(RuntimeError):
    """A loss term became NaN or infinite; the sentence names epoch, step and term."""
