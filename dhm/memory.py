"""What cannot fit into the memory of this machine, told before it is filled."""

import os

from dhm.errors import InputError


def see_room(needed: int, what: str) -> None:
    """See that so many bytes can be there at all; what else runs is not asked for.

    Raises:
        InputError: they are more than the machine has.
    """
    there = _physical()
    if there is not None and needed > there:
        raise InputError(f"{what} take {needed / 2**30:,.1f} GiB, and this machine has {there / 2**30:,.1f} GiB")


def _physical() -> int | None:
    """Bytes of memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was no room, as torch tells it of each device."""
    words = ("out of memory", "allocate memory", "calculation overflow", "multiplication overflow")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
