"""The settings of every preset: network, data and optimisation as the paper or the released program has them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dhm.data import reid
from dhm.errors import InputError
from dhm.zoo import blueprint, family_of

PRESETS = ("quick", "smoke", "paper", "released")
SMALL = ("quick", "smoke")
"""Presets that check the pipeline; what comes out of them is no evidence."""

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
    # A check of the pipeline: 2,000 images of 14 x 14, seconds a run.
    "dataset": "fashion-mnist-mini", "image_size": 14, "train_per_class": 200, "batch_size": 64,
    "epochs": 6, "milestones": (3, 5),
}  # fmt: skip
_SMALLER: dict[str, Any] = {"classes": 2, "train_per_class": 32, "epochs": 2, "batch_size": 16, "milestones": (1,)}
SMOKE: dict[str, Any] = {**QUICK, **_SMALLER}
IMAGENET_QUICK: dict[str, Any] = {
    # The same check for the ImageNet networks: images of 28 x 28, with the augmentation of the real thing.
    **QUICK, "image_size": 28, "augment": "scale", "epochs": 4, "milestones": (2, 3),
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


def resolve(preset: str, among: Sequence[str] = PRESETS) -> str:
    """A preset's name, one of some; an empty one means `$DHM_PRESET`, else "quick"."""
    name = preset or os.environ.get("DHM_PRESET") or "quick"
    if name not in among:
        raise InputError(f"preset must be one of {', '.join(among)}, not {name!r}")
    return name


def given(**changes: Any) -> dict[str, Any]:
    """Those parameters of a notebook that replace the preset's: an empty word and 0 leave it as it is."""
    return {name: value for name, value in changes.items() if value}


def settings(preset: str, arch: str, method: str = "baseline", dataset: str = "") -> dict[str, Any]:
    """Network, data and optimisation under a preset, as fields of `Config`.

    A data set of re-identification, by its name or a path that ends with it, asks for its recipe; MobileNet has no
    other.

    The quick and smoke presets take a family's name for its smallest member. Of the ImageNet recipes alone the
    augmentation depends on the method: DHM trains shallow networks without scale augmentation.

    Raises:
        InputError: a preset or a network the recipes do not know.
    """
    preset = resolve(preset)
    small = preset in SMALL
    member: dict[str, Any] = {"arch": arch, "options": QUICK_MEMBERS.get(arch, {}) if small else {}}
    family = family_of(arch)
    searched = Path(dataset).name in reid.DATASETS
    if family == "mobilenet" or searched:
        return reid_settings(preset, arch, dataset if searched else "")
    if family == "imagenet_resnet":
        recipe = {"quick": IMAGENET_QUICK, "smoke": IMAGENET_SMOKE}.get(preset, IMAGENET_PAPER)
        released = IMAGENET_RELEASED if preset == "released" else {}
        cancelled = {"augment": "fixed_scale"} if method == "dhm" and shallow(member) else {}
        return {**member, **SGD, **recipe, **released, **cancelled}
    if small:
        return {**member, **SGD, **(QUICK if preset == "quick" else SMOKE)}
    if family not in CIFAR_PAPER:
        raise InputError(
            f"the paper gives no recipe for {arch!r}; it has one for {', '.join([*CIFAR_PAPER, 'imagenet_resnet'])}. "
            "The config.json of such a run (--config) can be started from"
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
    small, family = preset in SMALL, family_of(arch)
    if family not in REID_PAPER:
        raise InputError(f"the paper gives {arch!r} no re-identification recipe; {', '.join(REID_PAPER)} have one")
    if not small:
        dataset = dataset or "market1501"
        return {"arch": arch, "options": {}, "dataset": dataset, "image_size": 256, **REID, **REID_PAPER[family]}
    recipe = {"dataset": dataset or "pedestrians", "image_size": 64, **REID, **REID_QUICK[family]}
    smoke = {"classes": 8, "epochs": 2, "milestones": (1,)} if preset == "smoke" else {}
    return {"arch": arch, "options": QUICK_MEMBERS.get(arch, {}), **recipe, **smoke}


def shallow(network: Mapping[str, Any]) -> bool:
    """Whether DHM trains an ImageNet network, given by its `arch` and `options`, without scale augmentation."""
    return blueprint(network["arch"], **network["options"]).depth <= SHALLOW  # type: ignore[attr-defined]
