"""The command line: python -m dhm list | train | evaluate | estimate | export | keep | verify | notebook | report."""

import argparse
import dataclasses
import gc
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from dhm import paths
from dhm.errors import InputError, NonFiniteLoss, Stopped
from dhm.memory import ran_out
from dhm.options import add_machine, add_settings, add_step, configs_from, machine, settings, step
from dhm.paper import presets
from dhm.records import unfinished
from dhm.records.record import RunRecord
from dhm.records.store import find
from dhm.records.verification import DAMAGED, STATES, UNFINISHED, verify
from dhm.records.weights import export, load_released, load_trained, released_name, torchvision_label
from dhm.zoo import FAMILIES, MODELS, create_model


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
    add_settings(command)
    add_machine(command)
    add_step(command)
    command.add_argument("--runs-dir", type=Path, help="where run records are kept (default $DHM_RUNS, else runs/)")
    command.add_argument("--tensorboard", action="store_true", help="curves for TensorBoard, in the record's folder")
    command.set_defaults(run=_train)

    command = commands.add_parser("estimate", help="measure a few steps and say how long a training will take")
    add_settings(command)
    add_machine(command)
    add_step(command)
    command.add_argument("--steps", type=int, default=10, help="steps to measure (default 10)")
    command.set_defaults(run=_estimate)

    command = commands.add_parser("evaluate", help="errors of every classifier of runs or of released checkpoints")
    command.add_argument(
        "paths", type=Path, nargs="+", metavar="path",
        help="folders of run records, released checkpoints, weights of torchvision; a file's network is recognised",
    )  # fmt: skip
    command.add_argument("--which", choices=("last", "best"), default="last", help="which epoch of a run")
    add_settings(command)
    add_machine(command)
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

    options = {"tensorboard": given.tensorboard, **step(given), **machine(given)}
    if not given.preset and not given.config:
        print(f"preset {presets.resolve('')}, as none is given (--preset {'|'.join(presets.PRESETS)})", flush=True)
    configs = configs_from(given)
    left = [name for name in ("classes", "train_per_class") if getattr(given, name) is None]
    part = [f"{name}={value}" for name in left if (value := getattr(configs[0], name))]
    if part and given.dataset and not given.config:  # a small preset's, of images that are the reader's own
        print(f"of {given.dataset} this preset takes {', '.join(part)} (null takes all)", flush=True)
    if given.config and given.config.name == "config.json" and len(configs) == 1:
        options["resume_from"] = given.config.parent  # with its checkpoint, if it has one
    for _ in fit_all(configs, wait=False, runs_dir=given.runs_dir, **options):
        pass


def _estimate(given: argparse.Namespace) -> None:
    from dhm.training.estimate import duration, estimate

    configs = configs_from(given)
    total = 0.0
    for config in configs:
        cost = estimate(config, given.steps, **step(given), **machine(given))
        total += cost.seconds
        print(f"{config.name}: {cost}", flush=True)
    if len(configs) > 1:
        print(f"all {len(configs)} runs: {duration(total)}")


def _evaluate(given: argparse.Namespace) -> None:
    from dhm.training.arithmetic import AUTO, native
    from dhm.training.evaluation import evaluate

    wide = max(44, *(len(f"{path.name} ({given.which})") for path in given.paths))
    for path in given.paths:
        if path.is_dir():
            asked = [name for name in ("preset", "config") if getattr(given, name)]
            asked += [field.name for field in settings(given) if field.name != "precision"]
            if asked:
                raise InputError(f"{path} is a run record and has its settings in itself; leave out {asked[0]}")
            record = RunRecord.read(path)
            config, net = record.config, load_trained(record, given.which)
            label = f"{record.folder.name} ({given.which})"
            if given.precision:  # a machine may lack the arithmetic of the one that trained
                asked_for = native(given.accelerator) if given.precision == AUTO else given.precision
                config = config.replace(precision=asked_for)
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
        if path is given.paths[0]:
            columns = "".join(f"{name:>10}" for name in ("top-1", "top-5", "nll", "ece"))
            print(f"{'network':<20}{'weights':<{wide}} {'images':>8}  {'head':<6}{columns}")
        for head, figures in predictions.summary().items():
            told = "".join(f"{figures.get(name, 0):>10.3f}" for name in ("top1_error", "top5_error", "nll", "ece"))
            if "mAP" in figures:  # a search, under no heading of errors
                told = "  " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"{config.arch:<20}{label:<{wide}} {len(predictions):>8,}  {head:<6}{told}", flush=True)


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
        told = run_all(names[::-1])  # the tables, which train most, first: what is short fills the end
    else:
        told = iter([str(run_notebook(given.name, dict(given.parameters), given.output))])
    for number, words in enumerate(told, start=1):
        print(f"[{number}/{len(names)}] {words}" if len(names) > 1 else words, flush=True)


def _report(given: argparse.Namespace) -> None:
    from dhm.notebook import write_report

    print(write_report(given.output))


if __name__ == "__main__":
    gc.freeze()  # what torch has imported is not looked through again whenever garbage is collected
    sys.exit(main())
