"""The options of a command line: settings of runs, and of the machine they are trained on."""

import argparse
import dataclasses
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhm.config import ONE_OF, Config
from dhm.errors import InputError
from dhm.paper import presets
from dhm.records import inside
from dhm.training.arithmetic import AUTO, as_begun

GRID = ("arch", "seed", "method")  # settings that may be given several values at once
LISTS = ("milestones",)
MAPPINGS = ("options", "ce_weights", "mimic_weights")


def add_settings(command: argparse.ArgumentParser) -> None:
    """An option for every setting of a run, and what they start from."""
    command.add_argument("--preset", default="", help=f"settings to start from: {', '.join(presets.PRESETS)}")
    command.add_argument("--config", type=Path, help="a config.json to start from instead of a preset")
    group = command.add_argument_group("settings of a run (dhm.Config); arch, method and seed take several values")
    told = explained()
    for field in dataclasses.fields(Config):
        several = "+" if field.name in GRID else "*" if field.name in (*LISTS, *MAPPINGS) else None
        value = f"{{{','.join(ONE_OF[field.name])}}}" if field.name in ONE_OF else "VALUE"
        group.add_argument(
            f"--{field.name.replace('_', '-')}", nargs=several, help=told.get(field.name, "").replace("%", "%%"),
            metavar="NAME=VALUE" if field.name in MAPPINGS else value,
        )  # fmt: skip


def explained() -> dict[str, str]:
    """What the documentation of `Config` says of each field."""
    text = inspect.getdoc(Config) or ""  # none under python -OO
    entries = re.findall(r"^    (\w+(?:, \w+)*): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for names, words in entries for name in names.split(", ")}


def add_machine(command: argparse.ArgumentParser) -> None:
    """Options on where data are and what computes."""
    command.add_argument("--data-dir", type=Path, help="where data sets are (default $DHM_DATA, else data/)")
    command.add_argument("--download", action="store_true", help="fetch CIFAR-100 or torchvision's weights if missing")
    command.add_argument("--accelerator", default="auto", help="cpu, cuda or auto")
    command.add_argument(
        "--workers", type=int, help="processes that read streamed images (default one a core, at most 8)"
    )


def add_step(command: argparse.ArgumentParser) -> None:
    """Options on how a training step is run."""
    command.add_argument(
        "--accumulate", type=int, default=1, metavar="N", help="run a batch as N shards, to fit a small device"
    )
    command.add_argument(
        "--compile", action="store_true", help="capture the step by torch.compile, on a GPU as CUDA graphs"
    )


def _pairs(name: str, items: Sequence[str]) -> dict[str, Any]:
    """A setting that is written as NAME=VALUE several times."""
    pairs: dict[str, Any] = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not key or not sign:
            raise InputError(f"{name} must be written NAME=VALUE, not {item!r}")
        if key in pairs:
            raise InputError(f"{name} gives {key} twice")
        pairs[key] = _value(value)
    return pairs


def _value(text: str, kind: Any = Any) -> Any:
    """A setting as it is written on the command line: where it need not be a word, what it is in JSON."""
    if kind is str:
        return text
    try:
        return inside.parsed(text)
    except ValueError:
        return text


def configs_from(given: argparse.Namespace, preset: str = "") -> list[Config]:
    """The runs a command line asks for, from `preset` if it names none, all methods of a seed before the next seed.

    Epochs given without milestones or held epochs move those of the preset with them.
    """
    if given.config and given.preset:
        raise InputError("give a preset or a config to start from, not both")
    changes: dict[str, Any] = {}
    for field in settings(given):
        text = getattr(given, field.name)
        if field.name in MAPPINGS:
            changes[field.name] = _pairs(field.name, text)
        elif isinstance(text, list):
            changes[field.name] = [_value(item, field.type) for item in text]
        else:
            changes[field.name] = _value(text, field.type)
    start = _read_config(given.config) if given.config else {}
    architectures, seeds, methods = (
        changes.pop(name, [start.get(name, default)])
        for name, default in (("arch", "cifar_resnet"), ("seed", 0), ("method", "dhm"))
    )
    dataset = changes.get("dataset", "")

    def begin(arch: str, method: str) -> dict[str, Any]:
        """What the changes are made to: the preset or config in the epochs asked for."""
        values = start or presets.settings(given.preset or preset, arch, method, dataset)
        return Config.from_dict(values).lasting(changes["epochs"]).to_dict() if "epochs" in changes else values

    automatic = changes.get("precision") == AUTO
    if automatic:
        del changes["precision"]
    configs = [
        Config.from_dict({**begin(arch, method), **changes, "arch": arch, "method": method, "seed": seed})
        for arch in architectures for seed in seeds for method in methods
    ]  # fmt: skip
    return [as_begun(c, getattr(given, "runs_dir", None), given.accelerator) for c in configs] if automatic else configs


def settings(given: argparse.Namespace) -> list[dataclasses.Field]:
    """The settings a command line gives."""
    return [field for field in dataclasses.fields(Config) if getattr(given, field.name) is not None]


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return Config.from_dict(inside.mapping(inside.content(file).decode())).to_dict()
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no configuration of a run: {error}") from None


def machine(given: argparse.Namespace) -> dict[str, Any]:
    """What a command line says by `add_machine`, as arguments of `dhm.fit`."""
    names = ("data_dir", "download", "accelerator", "workers")
    return {name: getattr(given, name) for name in names}


def step(given: argparse.Namespace) -> dict[str, Any]:
    """What it says by `add_step`, likewise."""
    return {"accumulate": given.accumulate, "compile": given.compile}
