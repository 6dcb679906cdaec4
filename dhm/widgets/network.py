"""A network of the paper or any member of its families: trunk and branches, sizes, cost."""

import asyncio
import contextlib
import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import ipywidgets
import torch

from dhm.analysis.networks import architecture
from dhm.branches import BranchSpec
from dhm.errors import InputError
from dhm.flops import flops
from dhm.plots.network import draw_network
from dhm.widgets.view import WIDE, Screen, View, pick, row, told
from dhm.zoo import FAMILIES, MODELS, blueprint, branches_of, create_model, family_of, list_models

IMAGE_SIZES = {"imagenet_resnet": 224, "mobilenet": 224}
"""Of families that are not made for 32x32."""
LARGE = 150
"""Blocks above which measuring takes more than a second or two."""
BRANCHES = {"as in the paper": "paper", "none": "none", "bare classifiers": "bare"}


_measured: dict[tuple[Any, ...], View] = {}


def _key(name: str, branches: str, options: dict[str, Any]) -> tuple[Any, ...]:
    return (name, branches, *sorted(options.items()))


def _measure(name: str, branches: str, options: dict[str, Any]) -> View:
    plan = blueprint(name, **options)
    specs = branches_of(name, plan, "paper" if branches == "bare" else branches)
    if branches == "bare":
        specs = tuple(BranchSpec(spec.name, spec.root) for spec in specs)
    with torch.device("meta"):  # shapes without weights: the largest takes no memory
        net = create_model(name, branches=specs, **options)
    size, source = IMAGE_SIZES.get(family_of(name), 32), f" ({MODELS[name].source})" if name in MODELS else ""
    owned = {owner: sum(p.numel() for p in group) / 1e6 for owner, group in net.parameter_groups().items()}
    work = flops(net, size)
    words = (
        f"{name}{source}, {size}×{size} images, 100 classes. Parameters in millions: "
        f"{', '.join(f'{owner} {count:.2f}' for owner, count in owned.items())}. Multiply-adds of an image: "
        f"{work['B0'] / 1e9:.3g} G at inference, where B0 runs alone; training takes "
        f"{sum(work.values()) / work['B0']:.2f} times the plain network's."
    )
    title = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
    return View(words, draw_network(net, size, title), architecture.table(net, size))


def view(name: str = "resnet32", branches: str = "paper", **options: Any) -> View:
    """A network drawn, with its table and what its branches cost.

    Args:
        name: one of `dhm.list_models()` or a family.
        branches: "paper", "none", or "bare" for classifiers directly on the layers.
        **options: the family's parameters, e.g. `depth=20`.

    Raises:
        InputError: as `dhm.create_model`.
    """
    key = _key(name, branches, options)
    if key not in _measured:
        _measured[key] = _measure(name, branches, options)
    return _measured[key]


def explore() -> ipywidgets.VBox:
    """Choose a network or a family with its parameters, and its branches.

    A large network not seen before is measured by another process, so that the kernel stays free.
    """
    name = pick("network", [*list_models(), *FAMILIES], "resnet32")
    branches = pick("branches", list(BRANCHES.items()), "paper")
    family, screen = row(), Screen()
    fields: dict[str, ipywidgets.ValueWidget] = {}
    asked = 0

    def choose(_: Any = None) -> None:
        fields.clear()
        if name.value in FAMILIES:
            for field in dataclasses.fields(FAMILIES[name.value]):
                if field.name != "num_classes" and field.default is not None:  # None lets the family choose
                    fields[field.name] = _control(field.name, field.default)
        family.children = tuple(fields.values())
        for control in fields.values():
            control.observe(draw, "value")
        draw()

    def draw(_: Any = None) -> None:
        nonlocal asked
        asked += 1
        options = {key: control.value for key, control in fields.items()}
        if not _takes_long(name.value, branches.value, options):
            screen.show(told(view, name=name.value, branches=branches.value, **options))
            return
        screen.words.value = f"measuring {name.value}, a matter of some 20 seconds; other cells can run meanwhile …"
        task = asyncio.get_running_loop().create_task(draw_later(asked, name.value, branches.value, options))
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    async def draw_later(number: int, name: str, branches: str, options: dict[str, Any]) -> None:
        with contextlib.suppress(InputError):  # what is wrong with the network, `view` says
            await _measure_elsewhere(name, branches, options)
        if number == asked:  # nothing newer was asked for meanwhile
            screen.show(told(view, name=name, branches=branches, **options))

    waiting: set[asyncio.Task] = set()  # held here, since the loop holds its tasks weakly
    name.observe(choose, "value")
    branches.observe(draw, "value")
    choose()
    return ipywidgets.VBox([row(name, branches, family), *screen.parts])


def _takes_long(name: str, branches: str, options: dict[str, Any]) -> bool:
    """Whether a network is large, not yet measured, and there is a kernel to be kept free."""
    try:
        asyncio.get_running_loop()
        return _key(name, branches, options) not in _measured and sum(blueprint(name, **options).depths) > LARGE
    except (RuntimeError, InputError):  # what is wrong with the network, `view` says
        return False


async def _measure_elsewhere(name: str, branches: str, options: dict[str, Any]) -> None:
    """Measure in a process of its own. A thread would not do: torch's flop counter hooks into modules everywhere."""
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    work = asyncio.get_running_loop().run_in_executor(pool, _measure, name, branches, options)
    pool.shutdown(wait=False)  # when the work is done; to wait for that would hold the kernel
    _measured[_key(name, branches, options)] = await work


def _control(name: str, default: Any) -> ipywidgets.ValueWidget:
    """A control for a family's parameter, taken over when it is complete, not at every key."""
    layout = {"width": f"{8 * len(name) + 110}px"}
    if isinstance(default, bool):
        return ipywidgets.Checkbox(value=default, description=name, indent=False, layout={"width": "max-content"})
    kind = ipywidgets.IntText if isinstance(default, int) else ipywidgets.FloatText
    return kind(value=default, description=name, continuous_update=False, style=WIDE, layout=layout)
