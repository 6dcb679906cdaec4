"""What to train: the settings of every preset, and the runs behind each table."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from dhm.config import Config
from dhm.errors import InputError
from dhm.zoo import EXTRA_BRANCHES, blueprint, branches_of, family_of

PRESETS = ("quick", "smoke", "paper", "released")
METHODS = ("baseline", "dsl", "dhm")

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}

CIFAR_PAPER: dict[str, dict[str, Any]] = {
    # Section 4.1.1: batch 128, weight decay 1e-4 for all; schedules "of the original works".
    "cifar_resnet": {"epochs": 164, "batch_size": 128, "milestones": (81, 122), "gamma": 0.1},
    "wrn": {"epochs": 200, "batch_size": 128, "milestones": (60, 120, 160), "gamma": 0.2},
    "densenet": {"epochs": 300, "batch_size": 128, "milestones": (150, 225), "gamma": 0.1},
}
CIFAR_RELEASED: dict[str, dict[str, Any]] = {
    # Where the released program's commands depart from the text.
    "cifar_resnet": {},
    "wrn": {"weight_decay": 5e-4},
    "densenet": {"batch_size": 64},
}
IMAGENET_PAPER: dict[str, Any] = {
    # Section 4.1.2; the learning rate falls "every 30 epochs".
    "dataset": "imagenet", "image_size": 224, "augment": "scale", "epochs": 90, "batch_size": 256,
    "milestones": (30, 60), "gamma": 0.1,
}  # fmt: skip
IMAGENET_RELEASED: dict[str, Any] = {"milestones": (31, 61)}
SHALLOW = 34
"""Deepest ImageNet network that DHM trains without scale augmentation. Section 4.1.2 cancels it "for relatively
shallow ResNet models" and names none; we take the networks of basic blocks, so ResNet-50 keeps it."""

REID: dict[str, Any] = {
    # Section 4.2. The amount of smoothing is not stated; 0.1 is the field's habit.
    "optimizer": "amsgrad", "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 32, "gamma": 0.1,
    "label_smoothing": 0.1, "augment": "crop",
}  # fmt: skip
REID_PAPER: dict[str, dict[str, Any]] = {
    # 10 epochs "in advance with the pre-trained layers fixed", then 60; their learning rate is not stated: the first.
    "imagenet_resnet": {"lr": 3e-4, "epochs": 70, "milestones": (30, 50), "weights": "imagenet", "frozen_epochs": 10},
    "mobilenet": {"lr": 1e-3, "epochs": 90, "milestones": (30, 60)},
}
REID_QUICK: dict[str, dict[str, Any]] = {
    # The same check on drawn pedestrians of 64 x 32, from scratch.
    "imagenet_resnet": {"lr": 3e-3, "epochs": 12, "milestones": (7, 10)},
    "mobilenet": {"lr": 1e-2, "epochs": 30, "milestones": (22, 27)},
}

QUICK: dict[str, Any] = {
    # A check of the pipeline: 4,000 images of 14 x 14, seconds a run.
    "dataset": "fashion-mnist-mini", "image_size": 14, "epochs": 6, "batch_size": 128, "milestones": (3, 5),
}  # fmt: skip
_SMALLER: dict[str, Any] = {"train_per_class": 32, "epochs": 2, "batch_size": 64, "milestones": (1,)}
SMOKE: dict[str, Any] = {**QUICK, **_SMALLER}
IMAGENET_QUICK: dict[str, Any] = {
    # The same check for the ImageNet networks: 2,000 images of 28 x 28, with the augmentation of the real thing.
    **QUICK, "image_size": 28, "train_per_class": 200, "augment": "scale", "batch_size": 64,
    "epochs": 4, "milestones": (2, 3),
}  # fmt: skip
IMAGENET_SMOKE: dict[str, Any] = {**IMAGENET_QUICK, **_SMALLER}

QUICK_MEMBERS: dict[str, dict[str, Any]] = {
    # The smallest members of the families, for the quick and smoke presets.
    "cifar_resnet": {"depth": 8},
    "densenet": {"depth": 10, "growth": 8},
    "wrn": {"depth": 10, "width": 1},
    "imagenet_resnet": {"depth": 10, "base": 8},
    "mobilenet": {"width": 0.25},
}
TABLE1 = ("resnet32", "resnet110", "resnet1202", "densenet40_12", "densenet100_12", "wrn16_8", "wrn28_10")
TABLE2 = ("resnet18", "resnet50", "resnet101", "resnet152")
TABLE3 = ("resnet50", "mobilenet_v1")
TABLE3_SETS = ("market1501", "dukemtmc-reid")
TABLE4 = ((), ("B1",), ("B2",), ("B1", "B2"), ("B1", "B2", "B3"))
"""The side branches of each row."""


def resolve(preset: str) -> str:
    """A preset's name; an empty one means `$DHM_PRESET`, else "quick"."""
    name = preset or os.environ.get("DHM_PRESET") or "quick"
    if name not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, not {name!r}")
    return name


def settings(preset: str, arch: str, method: str = "baseline") -> dict[str, Any]:
    """Network, data and optimisation under a preset, as fields of `Config`.

    The quick and smoke presets take a family's name for its smallest member. Of the ImageNet recipes alone the
    augmentation depends on the method: DHM trains shallow networks without scale augmentation.

    Raises:
        InputError: a preset or a network the recipes do not know.
    """
    preset = resolve(preset)
    small = preset in ("quick", "smoke")
    member: dict[str, Any] = {"arch": arch, "options": QUICK_MEMBERS.get(arch, {}) if small else {}}
    family = family_of(arch)
    if family == "mobilenet":
        return reid_settings(preset, arch)
    if family == "imagenet_resnet":
        recipe = {"quick": IMAGENET_QUICK, "smoke": IMAGENET_SMOKE}.get(preset, IMAGENET_PAPER)
        released = IMAGENET_RELEASED if preset == "released" else {}
        cancelled = {"augment": "fixed_scale"} if method == "dhm" and shallow(member) else {}
        return {**member, **SGD, **recipe, **released, **cancelled}
    if small:
        return {**member, **SGD, **(QUICK if preset == "quick" else SMOKE)}
    if family not in CIFAR_PAPER:
        raise InputError(
            f"the paper gives no recipe for {arch!r}; it has one for {', '.join([*CIFAR_PAPER, 'imagenet_resnet'])}"
        )
    paper = {**member, "dataset": "cifar100", **SGD, **CIFAR_PAPER[family]}
    return paper if preset == "paper" else {**paper, **CIFAR_RELEASED[family]}


def reid_settings(preset: str, arch: str, dataset: str = "") -> dict[str, Any]:
    """Network, data and optimisation of re-identification under a preset; the released program has none of its own.

    Args:
        dataset: by default Market-1501, or with quick and smoke the drawn pedestrians.

    Raises:
        InputError: a preset or a network without such a recipe.
    """
    preset = resolve(preset)
    small, family = preset in ("quick", "smoke"), family_of(arch)
    if family not in REID_PAPER:
        raise InputError(f"the paper gives {arch!r} no re-identification recipe; {', '.join(TABLE3)} have one")
    if not small:
        dataset = dataset or TABLE3_SETS[0]
        return {"arch": arch, "dataset": dataset, "image_size": 256, **REID, **REID_PAPER[family]}
    recipe = {"dataset": dataset or "pedestrians", "image_size": 64, **REID, **REID_QUICK[family]}
    smoke = {"classes": 8, "epochs": 2, "milestones": (1,)} if preset == "smoke" else {}
    return {"arch": arch, "options": QUICK_MEMBERS.get(arch, {}), **recipe, **smoke}


def shallow(network: Mapping[str, Any]) -> bool:
    """Whether DHM trains an ImageNet network, given by its `arch` and `options`, without scale augmentation."""
    return blueprint(network["arch"], **network["options"]).depth <= SHALLOW  # type: ignore[attr-defined]


def table1(
    preset: str = "", architectures: Sequence[str] = (), methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (), **changes: Any,
) -> list[Config]:  # fmt: skip
    """The runs of Table 1 (CIFAR-100), all methods of a seed before the next seed.

    Args:
        architectures: names of networks; by default the table's seven, or with the quick and smoke presets one
            small member of each family.
        seeds: by default 0 to 4 as in the paper; 0 and 1 with quick, 0 with smoke.
        **changes: fields of `Config` that replace the preset's.
    """
    preset = resolve(preset)
    small = preset in ("quick", "smoke")
    architectures = architectures or (tuple(CIFAR_PAPER) if small else TABLE1)
    seeds = seeds or {"quick": (0, 1), "smoke": (0,)}.get(preset, (0, 1, 2, 3, 4))
    networks = [{"experiment": "table1", **settings(preset, arch), **changes} for arch in architectures]
    return grid(networks, methods, seeds)


def grid(networks: Sequence[dict[str, Any]], methods: Sequence[str], seeds: Sequence[int]) -> list[Config]:
    """Runs of every network with every method and seed, all methods of a seed before the next seed."""
    return [
        Config.from_dict({**network, "method": method, "seed": seed})
        for network in networks
        for seed in seeds
        for method in methods
    ]


def table2(
    preset: str = "", architectures: Sequence[str] = (), methods: Sequence[str] = METHODS, seeds: Sequence[int] = (0,),
    controls: bool = True, **changes: Any,
) -> list[Config]:  # fmt: skip
    """The runs of Table 2 (ImageNet). The paper prints single runs, hence one seed.

    Args:
        architectures: names of networks; by default the table's four, or one small member with quick and smoke.
        controls: for shallow networks also baseline and DSL without scale augmentation, which the table compares with
            DHM without it.
        **changes: fields of `Config` that replace the preset's.
    """
    runs = []
    for arch in architectures or _imagenet_networks(preset, TABLE2):
        variants = [{"method": method} for method in methods]
        if controls and shallow(settings(preset, arch)):
            variants += [_control(variant) for variant in variants]
        runs += _variants(preset, arch, variants, seeds, changes)
    return runs


def table3(
    preset: str = "", architectures: Sequence[str] = (), datasets: Sequence[str] = (), methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0,), **changes: Any,
) -> list[Config]:  # fmt: skip
    """The runs of Table 3 (person re-identification). The paper prints single runs, hence one seed.

    Args:
        architectures: names of networks; by default the table's two, or a small member of each with quick and smoke.
        datasets: by default the table's two, or the drawn pedestrians with quick and smoke.
        **changes: fields of `Config` that replace the preset's.
    """
    small = resolve(preset) in ("quick", "smoke")
    networks = [
        {"experiment": "table3", **reid_settings(preset, arch, dataset), **changes}
        for dataset in datasets or (("pedestrians",) if small else TABLE3_SETS)
        for arch in architectures or (tuple(REID_PAPER) if small else TABLE3)
    ]
    return grid(networks, methods, seeds)


def table4(preset: str = "", arch: str = "", seeds: Sequence[int] = (0,), **changes: Any) -> list[Config]:
    """The runs of Table 4: DHM with the side branches of each row of `TABLE4`; without any it is the baseline, also
    shown without scale augmentation, as the others are trained."""
    arch = arch or _imagenet_networks(preset, ("resnet18",))[0]
    variants = [{"method": "dhm", "branches": pick(preset, arch, names)} for names in TABLE4 if names]
    return _variants(preset, arch, [*_controlled({"method": "baseline"}), *variants], seeds, changes)


def table5(preset: str = "", arch: str = "", seeds: Sequence[int] = (0,), **changes: Any) -> list[Config]:
    """The runs of Table 5: every branch isolated, with and without scale augmentation, and all trained by DHM."""
    arch = arch or _imagenet_networks(preset, ("resnet18",))[0]
    alone = [run for name in ("B0", "B1", "B2") for run in _controlled({"method": "baseline", "isolated": name})]
    return _variants(preset, arch, [*alone, {"method": "dhm"}], seeds, changes)


def directions(preset: str = "", arch: str = "", seeds: Sequence[int] = (0,), **changes: Any) -> list[Config]:
    """The runs of section 4.3.1: mimicking in one direction and in both, against baseline and DSL."""
    arch = arch or _imagenet_networks(preset, ("resnet18",))[0]
    without = [run for method in ("baseline", "dsl") for run in _controlled({"method": method})]
    mimicking = [{"method": "dhm", "direction": way} for way in ("top_down", "bottom_up", "both")]
    return _variants(preset, arch, [*without, *mimicking], seeds, changes)


def branch_design(
    preset: str = "",
    arch: str = "",
    methods: Sequence[str] = ("dsl", "dhm"),
    seeds: Sequence[int] = (0,),
    **changes: Any,
) -> list[Config]:
    """The runs behind section 3.1: bare classifiers directly on the layers against the designed branches, and the
    baseline with and without scale augmentation."""
    arch = arch or _imagenet_networks(preset, ("resnet18",))[0]
    bare = [{**branch, "depths": [], "width": 1.0} for branch in _branches(preset, arch, ("B1", "B2"))]
    designs = [{"method": method, "branches": kind} for method in methods for kind in ("paper", bare)]
    return _variants(preset, arch, [*_controlled({"method": "baseline"}), *designs], seeds, changes)


def pick(preset: str, arch: str, names: Sequence[str]) -> str | list[dict[str, Any]]:
    """The value of `Config.branches` for the branches of these names."""
    return "paper" if tuple(names) == ("B1", "B2") else _branches(preset, arch, names)


def _branches(preset: str, arch: str, names: Sequence[str]) -> list[dict[str, Any]]:
    plan = blueprint(arch, **settings(preset, arch)["options"])
    extra = EXTRA_BRANCHES.get(arch, ())
    specs = {spec.name: spec for spec in (*branches_of(arch, plan, "paper"), *extra)}
    missing = next((name for name in names if name not in specs), None)
    if missing is not None:
        raise InputError(f"{arch} has no branch {missing}; it has {', '.join(specs)}")
    return [specs[name].to_dict() for name in names]


def _imagenet_networks(preset: str, of_the_paper: Sequence[str]) -> Sequence[str]:
    return ("imagenet_resnet",) if resolve(preset) in ("quick", "smoke") else of_the_paper


def _control(variant: Mapping[str, Any]) -> dict[str, Any]:
    return {**variant, "augment": "fixed_scale"}


def _controlled(variant: dict[str, Any]) -> list[dict[str, Any]]:
    """A variant with the recipe's scale augmentation and one without it."""
    return [variant, _control(variant)]


def _variants(
    preset: str, arch: str, variants: Sequence[Mapping[str, Any]], seeds: Sequence[int], changes: Mapping[str, Any]
) -> list[Config]:
    """ImageNet runs of a network, all variants of a seed before the next seed, none twice.

    They share one experiment, so that a run which stands in several tables is trained once.
    """
    runs = [
        Config.from_dict(
            {"experiment": "imagenet", **settings(preset, arch, v["method"]), **v, **changes, "seed": seed}
        )
        for seed in seeds
        for v in variants
    ]
    return list({run.name: run for run in runs}.values())
