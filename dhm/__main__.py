"""The command line: python -m dhm list | train | evaluate | estimate | export | keep | verify | notebook | report."""

import argparse
import dataclasses
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from dhm import paths
from dhm.config import ONE_OF, Config
from dhm.errors import InputError, NonFiniteLoss, Stopped
from dhm.memory import ran_out
from dhm.paper import presets
from dhm.records import inside, unfinished
from dhm.records.record import RunRecord
from dhm.records.store import find
from dhm.records.verification import DAMAGED, STATES, UNFINISHED, verify
from dhm.records.weights import export, load_released, load_trained, released_name, torchvision_label
from dhm.training.arithmetic import AUTO, as_begun
from dhm.zoo import FAMILIES, MODELS, create_model

GRID = ("arch", "seed", "method")  # settings that may be given several values at once
LISTS = ("milestones",)
MAPPINGS = ("options", "ce_weights", "mimic_weights")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all went well, 1 if a training broke, 2 for wrong input."""
    given = parser().parse_args(arguments)
    try:
        given.run(given)
    except InputError as error:
        print(f"dhm: {_in_a_line(error)}", file=sys.stderr)
        return 2
    except NonFiniteLoss as error:
        print(f"dhm: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        print(
            f"dhm: the memory does not suffice ({_in_a_line(error)[:120]}); a smaller batch_size or image_size takes "
            "less, and --accumulate less of a device",
            file=sys.stderr,
        )
        return 1
    except Stopped as stop:
        print(f"dhm: {stop}", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print("dhm: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _in_a_line(error: Exception) -> str:
    """A sentence as it is printed: names in it may hold what moves a terminal's cursor."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(error))


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"dhm: {message}; {self.prog} --help shows the usage\n")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(prog="python -m dhm", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="networks, with parameters and branches")
    command.set_defaults(run=_list)

    command = commands.add_parser("train", help="train a run, or a grid of runs; goes on where it was stopped")
    _add_settings(command)
    _add_machine(command)
    _add_step(command)
    command.add_argument("--runs-dir", type=Path, help="where run records are kept (default $DHM_RUNS, else runs/)")
    command.add_argument("--tensorboard", action="store_true", help="curves for TensorBoard, in the record's folder")
    command.set_defaults(run=_train)

    command = commands.add_parser("estimate", help="measure a few steps and say how long a training will take")
    _add_settings(command)
    _add_machine(command)
    _add_step(command)
    command.add_argument("--steps", type=int, default=10, help="steps to measure (default 10)")
    command.set_defaults(run=_estimate)

    command = commands.add_parser("evaluate", help="errors of every classifier of runs or of released checkpoints")
    command.add_argument(
        "paths", type=Path, nargs="+", metavar="path",
        help="folders of run records, released checkpoints, weights of torchvision; a file's network is recognised",
    )  # fmt: skip
    command.add_argument("--which", choices=("last", "best"), default="last", help="which epoch of a run")
    _add_settings(command)
    _add_machine(command)
    command.set_defaults(run=_evaluate)

    command = commands.add_parser("export", help="the plain network's tensors of any program's checkpoint, as a file")
    command.add_argument("file", type=Path, help="what a training program saved: .pth, .ckpt, .safetensors, ...")
    command.add_argument("--to", type=Path, required=True, help="where they go; .safetensors, or else as torch.save")
    command.add_argument("--ema", action="store_true", help="the averaged weights, where the file holds both")
    command.add_argument("--overwrite", action="store_true", help="in place of a file that is there")
    command.set_defaults(run=_export)

    command = commands.add_parser(
        "keep", help="put finished runs into data/records, without checkpoints but with what these tell"
    )
    command.add_argument("folders", type=Path, nargs="+", metavar="folder", help="run records, or folders of some")
    command.add_argument(
        "--unfinished", action="store_true",
        help="set the unfinished ones aside too, in data/unfinished with their last checkpoint, for another machine",
    )  # fmt: skip
    command.add_argument("--data-dir", type=Path, help="where data sets are (default $DHM_DATA, else data/)")
    command.set_defaults(run=_keep)

    command = commands.add_parser("verify", help="hold every file of run records against its checksum")
    command.add_argument(
        "folders", type=Path, nargs="*", metavar="folder",
        help="run records, or folders of some (default runs/ and data/records)",
    )  # fmt: skip
    command.set_defaults(run=_verify)

    command = commands.add_parser("notebook", help="run a notebook through papermill into runs/notebooks/")
    command.add_argument("name", help="e.g. table1_cifar100; all for every one but the report, which is a command")
    command.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    command.add_argument("-o", "--output", type=Path, help="where the finished notebook goes")
    command.add_argument("--refresh", action="store_true", help="put the outputs into the committed notebook")
    command.set_defaults(run=_notebook)

    command = commands.add_parser("report", help="what holds of the paper, by all records there are, as a page of HTML")
    command.add_argument("-o", "--output", type=Path, help="where the page goes (default runs/report.html)")
    command.set_defaults(run=_report)
    return top


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="", help=f"settings to start from: {', '.join(presets.PRESETS)}")
    command.add_argument("--config", type=Path, help="a config.json to start from instead of a preset")
    group = command.add_argument_group("settings of a run (dhm.Config); arch, method and seed take several values")
    explained = _explained()
    for field in dataclasses.fields(Config):
        several = "+" if field.name in GRID else "*" if field.name in (*LISTS, *MAPPINGS) else None
        value = f"{{{','.join(ONE_OF[field.name])}}}" if field.name in ONE_OF else "VALUE"
        group.add_argument(
            f"--{field.name.replace('_', '-')}", nargs=several, help=explained.get(field.name, "").replace("%", "%%"),
            metavar="NAME=VALUE" if field.name in MAPPINGS else value,
        )  # fmt: skip


def _explained() -> dict[str, str]:
    """What the documentation of `Config` says of each field."""
    text = inspect.getdoc(Config) or ""  # none under python -OO
    entries = re.findall(r"^    (\w+(?:, \w+)*): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for names, words in entries for name in names.split(", ")}


def _add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data-dir", type=Path, help="where data sets are (default $DHM_DATA, else data/)")
    command.add_argument("--download", action="store_true", help="fetch CIFAR-100 or torchvision's weights if missing")
    command.add_argument("--accelerator", default="auto", help="cpu, cuda or auto")
    command.add_argument(
        "--workers", type=int, help="processes that read streamed images (default one a core, at most 8)"
    )


def _add_step(command: argparse.ArgumentParser) -> None:
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
    for field in _settings(given):
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


def _settings(given: argparse.Namespace) -> list[dataclasses.Field]:
    """The settings a command line gives."""
    return [field for field in dataclasses.fields(Config) if getattr(given, field.name) is not None]


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return Config.from_dict(inside.mapping(inside.content(file).decode())).to_dict()
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no configuration of a run: {error}") from None


def _machine(given: argparse.Namespace) -> dict[str, Any]:
    names = ("data_dir", "download", "accelerator", "workers")
    return {name: getattr(given, name) for name in names}


def _step(given: argparse.Namespace) -> dict[str, Any]:
    return {"accumulate": given.accumulate, "compile": given.compile}


def _list(given: argparse.Namespace) -> None:
    print(f"{'network':<18}{'B0':>12}{'B1':>12}{'B2':>12}   source")
    for name, entry in MODELS.items():
        with torch.device("meta"):
            net = create_model(name)
        counts = [sum(p.numel() for p in group) for group in net.parameter_groups().values()]
        print(f"{name:<18}" + "".join(f"{count:>12,}" for count in counts) + f"   {entry.source}")
    print(
        "\nParameters by owner, 100 classes; B0 alone runs at inference. Families, with the options of their members:"
    )
    for name, family in FAMILIES.items():
        options = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(family) if f.name != "num_classes")
        print(f"  {name}: {options}")


def _train(given: argparse.Namespace) -> None:
    from dhm.training.grid import fit_all  # Fabric and what reads data sets take a second to import

    options = {"tensorboard": given.tensorboard, **_step(given), **_machine(given)}
    if not given.preset and not given.config:
        print(f"preset {presets.resolve('')}, as none is given (--preset {'|'.join(presets.PRESETS)})", flush=True)
    configs = configs_from(given)
    if given.config and given.config.name == "config.json" and len(configs) == 1:
        options["resume_from"] = given.config.parent  # with its checkpoint, if it has one
    for _ in fit_all(configs, wait=False, runs_dir=given.runs_dir, **options):
        pass


def _estimate(given: argparse.Namespace) -> None:
    from dhm.training.estimate import duration, estimate

    configs = configs_from(given)
    total = 0.0
    for config in configs:
        cost = estimate(config, given.steps, **_step(given), **_machine(given))
        total += cost.seconds
        print(f"{config.name}: {cost}", flush=True)
    if len(configs) > 1:
        print(f"all {len(configs)} runs: {duration(total)}")


def _evaluate(given: argparse.Namespace) -> None:
    from dhm.training.evaluation import evaluate

    print(f"{'network':<20}{'weights':<44} {'images':>8}  {'head':<6}{'top-1':>8}{'top-5':>8}{'nll':>8}{'ece':>8}")
    for path in given.paths:
        if path.is_dir():
            asked = [name for name in ("preset", "config") if getattr(given, name)]
            asked += [field.name for field in _settings(given)]
            if asked:
                raise InputError(f"{path} is a run record and has its settings in itself; leave out {asked[0]}")
            record = RunRecord.read(path)
            config, net, label = (
                record.config,
                load_trained(record, given.which),
                f"{record.folder.name} ({given.which})",
            )
        else:
            arch = given.arch or [released_name(path)]
            config, *others = configs_from(argparse.Namespace(**{**vars(given), "arch": arch}), preset="paper")
            if others:
                raise InputError(f"{path} holds one network; give one arch, method and seed, or none")
            net, label = load_released(path, config.arch, **config.options), torchvision_label(path) or path.name
        predictions = evaluate(
            net, config, data_dir=given.data_dir, download=given.download, accelerator=given.accelerator,
            workers=given.workers, numbered=not path.is_dir(),  # a run's classes are in the order of its train/
        )  # fmt: skip
        for head, figures in predictions.summary().items():
            told = "".join(f"{figures.get(name, 0):>8.3f}" for name in ("top1_error", "top5_error", "nll", "ece"))
            if "mAP" in figures:  # a search, under no heading of errors
                told = "  " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"{config.arch:<20}{label:<44} {len(predictions):>8,}  {head:<6}{told}", flush=True)


def _export(given: argparse.Namespace) -> None:
    state = export(given.file, given.to, given.ema, given.overwrite)
    print(f"{given.to}: {len(state)} tensors, {sum(tensor.numel() for tensor in state.values()):,} numbers")


def _keep(given: argparse.Namespace) -> None:
    from dhm.analysis.evidence.kept import keep  # needs packages that a cluster node may lack

    for folder in given.folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}")
    records = list(find(*given.folders))
    if not records:
        raise InputError(f"there is no run record that can be read in {', '.join(map(str, given.folders))}")
    for record in records:
        if record.result is not None:
            print(paths.shown(keep(record, paths.records_dir(), given.data_dir).folder), flush=True)
            unfinished.discard(record.config)
        elif given.unfinished:
            print(paths.shown(unfinished.set_aside(record).folder), flush=True)
        else:
            print(f"{record.folder.name}: not finished, left where it is")


def _verify(given: argparse.Namespace) -> None:
    places = [paths.existing(folder) for folder in given.folders] or [paths.runs_dir(), paths.records_dir()]
    files = sorted(file for place in places for file in place.rglob("config.json"))
    counts: Counter[str] = Counter()
    for folder in (file.parent for file in files):
        state, told = verify(folder)
        counts[state] += 1
        if state in (DAMAGED, UNFINISHED):
            print(f"{paths.shown(folder)}: {state}" + "".join(f"\n  {sentence}" for sentence in told), flush=True)
    print(f"{len(files)} records" + "".join(f", {counts[state]} {state}" for state in STATES if counts[state]))
    if counts[DAMAGED]:
        raise InputError(f"{counts[DAMAGED]} of {len(files)} records are damaged")


def _notebook(given: argparse.Namespace) -> None:
    from dhm.notebook import REPORT, list_notebooks, refresh, run_all, run_notebook

    every = [name for name in list_notebooks() if name != REPORT]
    names = every if given.name == "all" else [given.name]
    if len(names) > 1 and (given.parameters or given.output):
        raise InputError("parameters and an output belong to one notebook, not to all")
    if given.refresh and (given.parameters or given.output):
        raise InputError("a notebook is refreshed as it stands, without parameters or another output")
    told: Iterator[str]
    if given.refresh:
        told = (str(refresh(name)) for name in names)
    elif given.name == "all":
        told = run_all(names)
    else:
        told = iter([str(run_notebook(given.name, dict(given.parameters), given.output))])
    for number, words in enumerate(told, start=1):
        print(f"[{number}/{len(names)}] {words}" if len(names) > 1 else words, flush=True)


def _report(given: argparse.Namespace) -> None:
    from dhm.notebook import write_report

    print(write_report(given.output))


if __name__ == "__main__":
    sys.exit(main())
