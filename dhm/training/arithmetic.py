"""Which arithmetic a machine computes fastest in, and which one a run has been begun in."""

from pathlib import Path

import torch

from dhm import paths
from dhm.config import PRECISIONS, Config
from dhm.records.record import RunRecord

AUTO = "auto"


def native(accelerator: str = "auto") -> str:
    """ "bf16-mixed" where the hardware computes in bfloat16, else "32-true"."""
    if accelerator != "cpu" and torch.cuda.is_available():
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        can = torch.cpu.get_capabilities()
        has_it = any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last on ARM
    return "bf16-mixed" if has_it else "32-true"


def as_begun(config: Config, runs_dir: str | Path | None = None, accelerator: str = "auto") -> Config:
    """The configuration in the arithmetic its run has been begun in, here or where it was set aside or kept; a run that
    has not been begun takes the machine's."""
    places = (paths.runs_dir(runs_dir), paths.unfinished_dir(), paths.records_dir())
    for precision in PRECISIONS:
        run = config.replace(precision=precision)
        if any((RunRecord.of(run, place).folder / "config.json").is_file() for place in places):
            return run
    return config.replace(precision=native(accelerator))
