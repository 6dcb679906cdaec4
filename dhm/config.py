"""What a run is: every choice that can change its result, and nothing that cannot."""

import contextlib
import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhm.errors import InputError

STREAMED = ("scale", "fixed_scale")
"""Augmentations by image, as ImageNet's: its images are read when they are needed."""
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
METHODS = ("baseline", "dsl", "dhm")
DIRECTIONS = ("both", "top_down", "bottom_up")
ONE_OF = {
    "method": METHODS,
    "direction": DIRECTIONS,
    "test_on": ("val", "val+rest"),
    "augment": ("crop", "none", *STREAMED),
    "precision": PRECISIONS,
    "optimizer": ("sgd", "amsgrad"),
}
"""What a field may be, where the choices are few."""
_AT_LEAST = {
    "epochs": 1, "frozen_epochs": 0, "batch_size": 1, "seed": 0, "image_size": 8, "classes": 2, "train_per_class": 1,
}  # fmt: skip
_AT_MOST = {
    "epochs": 2**63 - 1, "frozen_epochs": 2**63 - 1, "batch_size": 2**63 - 1, "seed": 2**64 - 1, "image_size": 2**16,
    "classes": 2**63 - 1, "train_per_class": 2**63 - 1, "lr": 3.4e38, "weight_decay": 3.4e38,
}  # fmt: skip
"""What torch's numbers and generators hold, and Pillow's images."""
_LONGEST = 200
"""Bytes of a folder's name, which file systems end at 255; method, seed and digest come behind."""
_POSITIVE = ("lr", "temperature", "gamma")
_SHARES = ("momentum", "label_smoothing", "label_noise")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training run. Everything random in it follows from `seed`.

    Attributes:
        experiment: folder of the run record; not part of the run's identity.
        arch: network by name: of `dhm.list_models()`, or a family.
        options: the family's parameters.
        branches: "paper", "none", "twin" (a second network that shares nothing), or a list of branch specifications.
        method: "baseline" trains the plain network, "dsl" all classifiers, "dhm" with mimicking as well.
        isolated: the branch that "baseline" trains, with the trunk below it as a network of its own (Table 5).
        direction: of the mimicking: "top_down" if the deeper classifier teaches the shallower. See `dhm.DHMLoss`.
        temperature: of the probabilities that are mimicked.
        ce_weights, mimic_weights: factors of loss terms, 1 by default, by the names "B0" and "B0<-B1".
        mimic_probability: of each side branch to take part in the mimicking of an epoch (appendix D); below 1 the
            branches are drawn anew for every epoch, and cross-entropies stay.
        label_smoothing: of the cross-entropies.
        dataset: "fashion-mnist-mini", "cifar100", "market1501", "dukemtmc-reid", "pedestrians" (re-identification),
            a folder inside the data directory, or a path.
        image_size: pixels of a side; None keeps the data set's own.
        classes: use only this many classes, evenly spaced in sorted order.
        train_per_class: use only the first so many training images of each class.
        test_on: "val", or "val+rest" to test on the training images left out by `train_per_class` too.
        label_noise: share of the training labels that is redrawn uniformly over the classes (appendix E).
        label_noise_excludes_truth: redraw over the other classes alone, so that every redrawn label is wrong.
        augment: of a set that fits into memory "crop" (pad 4, crop, flip: section 4.1.1) or "none"; of a streamed one
            "scale" (area and aspect ratio at random, flip: section 4.1.2) or "fixed_scale" (the shorter side to 256/224
            of the image size, crop, flip: scale augmentation cancelled). A streamed set is tested on the centre.
        weights: what B0 starts from but for its classifier: "imagenet" for torchvision's, a file, or nothing.
        frozen_epochs: the first so many of the epochs train only the layers that came without `weights`.
        optimizer: "sgd", or "amsgrad" (section 4.2), whose betas are momentum and 0.999.
        epochs: passes over the training images.
        batch_size: images a step, the sum over all devices.
        lr, momentum, weight_decay: of the optimizer.
        milestones, gamma: the learning rate is multiplied by gamma at the start of these epochs, counted from 0.
        precision: "32-true" (IEEE float32, no TF32), "bf16-mixed" or "16-mixed". The command line also takes "auto":
            the one the run has been begun in, else bf16-mixed where the hardware computes in bfloat16, else 32-true.
        seed: of the first weights, the order of the images and their augmentation.
    """

    experiment: str = "own"
    arch: str = "resnet32"
    options: Mapping[str, Any] = field(default_factory=dict)
    branches: str | list[dict[str, Any]] = "paper"
    method: str = "dhm"
    isolated: str = "B0"
    direction: str = "both"
    temperature: float = 1.0
    ce_weights: Mapping[str, float] = field(default_factory=dict)
    mimic_weights: Mapping[str, float] = field(default_factory=dict)
    mimic_probability: float = 1.0
    label_smoothing: float = 0.0
    dataset: str = "fashion-mnist-mini"
    image_size: int | None = None
    classes: int | None = None
    train_per_class: int | None = None
    test_on: str = "val"
    label_noise: float = 0.0
    label_noise_excludes_truth: bool = False
    augment: str = "crop"
    weights: str = ""
    frozen_epochs: int = 0
    optimizer: str = "sgd"
    epochs: int = 164
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: tuple[int, ...] = (81, 122)
    gamma: float = 0.1
    precision: str = "32-true"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, _fitted(value, kind))
            except (TypeError, OverflowError):  # an integer may be too large for a float
                raise InputError(f"{name} must be {_describe(kind)}, not {value!r}") from None
        for name, choices in ONE_OF.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, not {value}")
        for name, most in _AT_MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise InputError(f"{name} must be at most {most}, not {value}")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be a positive number, not {getattr(self, name)}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if not 0 <= self.mimic_probability <= 1:
            raise InputError(f"mimic_probability must be in [0, 1], not {self.mimic_probability}")
        if self.weight_decay < 0:
            raise InputError(f"weight_decay must not be negative, not {self.weight_decay}")
        if self.test_on == "val+rest" and self.train_per_class is None:
            raise InputError('test_on "val+rest" needs train_per_class, since all training images are used without it')
        if self.isolated != "B0" and self.method != "baseline":
            raise InputError(f'isolated is {self.isolated!r}, but only method "baseline" trains a branch alone')
        if any(milestone < 1 for milestone in self.milestones):
            raise InputError(f"milestones are epochs from 1 on, not {list(self.milestones)}")
        if self.frozen_epochs > self.epochs:
            raise InputError(f"frozen_epochs is {self.frozen_epochs}, but the run has {self.epochs} epochs")
        if self.frozen_epochs and not self.weights:
            raise InputError(f"frozen_epochs is {self.frozen_epochs}, but without weights no layer can be held")
        if self.streamed and self.image_size is None:
            raise InputError(f"augment {self.augment!r} needs an image_size, e.g. 224")
        if not self.dataset:
            raise InputError("dataset must be a name or a folder, not an empty word")
        for what, name in (("experiment", self.experiment), ("the network with its options", self.network)):
            if not _is_plain(name):
                raise InputError(f"{what} must be a plain folder name, not {_short(name)!r}")

    @property
    def streamed(self) -> bool:
        """Whether images are read when they are needed, not kept in memory."""
        return self.augment in STREAMED

    @property
    def dataset_name(self) -> str:
        """The data set wherever it stands on a disk: its folder's name where it is given by a path."""
        return Path(self.dataset).name or self.dataset  # "." and "/" have none

    def to_dict(self) -> dict[str, Any]:
        """The configuration in JSON's types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """The configuration with these fields, the others at their defaults.

        Raises:
            InputError: a field that does not exist, or a value it cannot have.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(f"a run has no setting {name!r}; it has {', '.join(known)}")
        return cls(**values)

    def replace(self, **changes: Any) -> "Config":
        """A copy with some fields changed."""
        return Config.from_dict({**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, **changes})

    @property
    def digest(self) -> str:
        """Ten hexadecimal digits of the run's identity.

        Fields at their default do not enter, so that a setting added later, neutral by default, leaves the
        identity of older records as it was.
        """
        default = Config().to_dict()
        identity = {k: v for k, v in self.to_dict().items() if k != "experiment" and v != default[k]}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def network(self) -> str:
        """The network with its options in one word, e.g. `cifar_resnet_depth20`."""
        return "_".join([self.arch, *(f"{key}{value}" for key, value in sorted(self.options.items()))])

    @property
    def name(self) -> str:
        """Folder of the run record."""
        return f"{self.network}-{self.method}-s{self.seed}-{self.digest}"

    def lasting(self, epochs: int) -> "Config":
        """The same training in other epochs: the learning rate falls at the same shares of it, and layers are held for
        the same share, to the nearest epoch."""
        other = self.replace(epochs=epochs, frozen_epochs=0)
        moved = [max(1, round(milestone * epochs / self.epochs)) for milestone in self.milestones]
        return other.replace(milestones=moved, frozen_epochs=round(self.frozen_epochs * epochs / self.epochs))

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


def _is_plain(name: str) -> bool:
    """Whether a folder can be called so, in any system, and lies where it is put."""
    shown = name.isprintable() and not name.startswith(".") and not {"/", "\\"} & {*name}
    return bool(name) and shown and len(name.encode()) <= _LONGEST


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}... of {len(text):,} characters"


def _fitted(value: Any, kind: Any) -> Any:
    """A value as a field of this kind holds it, so that 1 and 1.0, a list and a tuple are one run.

    Raises:
        TypeError: it does not fit, or a number in it is not finite.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, float):
        value += 0.0  # of the two zeros the one without a sign
    if origin is types.UnionType:
        for argument in arguments:
            with contextlib.suppress(TypeError):
                return _fitted(value, argument)
    elif origin in (Mapping, dict) and isinstance(value, Mapping):
        return {_fitted(k, arguments[0]): _fitted(v, arguments[1]) for k, v in value.items()}
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        return origin(_fitted(item, arguments[0]) for item in value)
    elif kind is Any and isinstance(value, Mapping | list | tuple):
        return _fitted(value, dict[str, Any] if isinstance(value, Mapping) else list[Any])
    elif kind is Any and finite and isinstance(value, str | int | float | None):
        return value
    elif kind is float and finite and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind in (int, str, bool, type(None)) and isinstance(value, kind) and (kind is bool) == isinstance(value, bool):
        return value
    raise TypeError


def _describe(kind: Any) -> str:
    words = {int: "an integer", float: "a finite number", str: "a word", bool: "true or false", type(None): "nothing"}
    if kind in words:
        return words[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (list, tuple):
        return f"a list whose items are each {_describe(arguments[0])}"
    if origin in (Mapping, dict):
        return f"a mapping from names to finite {'numbers' if arguments[1] is float else 'values'}"
    return " or ".join(_describe(argument) for argument in arguments)
