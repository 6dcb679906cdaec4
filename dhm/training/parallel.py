"""Several processes of one run: the devices they use, and what each knows brought together."""

import os
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import Logger
from lightning_fabric.plugins.environments import LightningEnvironment

from dhm.errors import InputError

T = TypeVar("T")
ACCELERATORS = ("auto", "cpu", "cuda")
"""Apple's GPUs are none of them: they have no float64, in which predictions are judged and galleries searched."""


def connect(accelerator: str, precision: str, loggers: list[Logger] | None = None) -> Fabric:
    """The device of this process, with its peers if `torchrun` started it: a process a device.

    Without `torchrun` a run has one process, inside a SLURM job too. Float32 is IEEE's on every device, not the TF32
    that GPUs take for convolutions by default, and a convolution gives the same bits each time.

    Raises:
        InputError: a device or a precision that cannot be had.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    if accelerator not in ACCELERATORS:
        raise InputError(f"the accelerator must be one of {', '.join(ACCELERATORS)}, not {accelerator!r}")
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cpu" and precision == "16-mixed":  # Fabric takes another with no more than a warning
        raise InputError("cpu has no 16-mixed precision; take bf16-mixed")
    launched = torch.distributed.is_torchelastic_launched()
    try:
        fabric = Fabric(
            accelerator=accelerator, precision=precision, loggers=loggers or [],  # type: ignore[arg-type]
            devices=int(os.environ["LOCAL_WORLD_SIZE"]) if launched else 1,
            num_nodes=int(os.environ["GROUP_WORLD_SIZE"]) if launched else 1,
            plugins=None if launched else LightningEnvironment(),
        )  # fmt: skip
    except (RuntimeError, ValueError, ImportError) as error:
        raise InputError(f"the device {accelerator!r} cannot be used: {error}") from None
    fabric.launch()
    cuda = fabric.device.type == "cuda"
    if precision == "bf16-mixed" and cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(f"{torch.cuda.get_device_name(fabric.device)} has no bfloat16; take precision 16-mixed")
    return fabric


def gather(value: T, world: int) -> list[T]:
    """What each of `world` processes holds under this name, by rank, in every process."""
    values: list[T] = [value] * world
    if world > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def interleave(parts: list[torch.Tensor]) -> torch.Tensor:
    """The inverse of giving rank r the columns r, r + world, ...: parts (heads, n_r, ...) -> (heads, N, ...)."""
    heads, _, *rest = parts[0].shape
    whole = parts[0].new_empty(heads, sum(part.shape[1] for part in parts), *rest)
    for rank, part in enumerate(parts):
        whole[:, rank :: len(parts)] = part
    return whole
