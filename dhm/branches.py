"""Side branches, and the network that trains with them and answers without them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from dhm.errors import InputError
from dhm.memory import ran_out
from dhm.models import Blueprint, StagedNet
from dhm.onednn import keep_clear

MAIN = "B0"
"""Name of the main branch, the classifier on top of the whole backbone."""
MOST_BLOCKS = 10_000
"""The paper's deepest network, ResNet-1202, has 600."""
IMAGE = -1
"""Root of a branch that starts from the image itself: a whole network of its own, which shares nothing."""


def check_name(name: Any) -> None:
    """See that a side branch can be called so.

    Raises:
        InputError: it is the main branch's name, no identifier, or taken by `nn.ModuleDict`, which keeps the branches.
    """
    if not isinstance(name, str) or not name.isidentifier() or name == MAIN or hasattr(nn.ModuleDict(), name):
        raise InputError(f"a branch cannot be called {name!r}: take B1, B2, ... ({MAIN} is the main branch)")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class BranchSpec:
    """A side branch in words.

    Attributes:
        name: B1, B2, ... in the paper, counted from the top of the network down.
        root: the branch starts from the output of this stage of the backbone (1 is the first; 0 the stem; -1, `IMAGE`,
            stands for the image).
        depths: building blocks in each of the branch's own later stages; empty for a bare classifier.
        width: how many times wider than the backbone's its stages are.

    Raises:
        InputError: a value of another type, or one no network can have.
    """

    name: str
    root: int
    depths: tuple[int, ...] = ()
    width: float = 1.0

    def __post_init__(self) -> None:
        check_name(self.name)
        if not _is_count(self.root):
            raise InputError(f"branch {self.name}: root must be the whole number of a stage, not {self.root!r}")
        if not isinstance(self.depths, list | tuple) or not all(map(_is_count, self.depths)):
            raise InputError(f"branch {self.name}: depths must be a list of whole numbers, not {self.depths!r}")
        number = isinstance(self.width, int | float) and not isinstance(self.width, bool)
        if not number or not 0 < self.width < math.inf:
            raise InputError(f"branch {self.name}: width must be a positive number, not {self.width!r}")
        object.__setattr__(self, "depths", tuple(self.depths))

    @property
    def shared(self) -> int:
        """How many of the backbone's stages the branch shares."""
        return max(self.root, 0)

    def to_dict(self) -> dict[str, Any]:
        """The specification in JSON's types."""
        return {**asdict(self), "depths": list(self.depths)}


def designed_branches(blueprint: Blueprint) -> tuple[BranchSpec, ...]:
    """B1 and B2 for any blueprint, by the three principles of appendix A.

    Building blocks and the number of down-samplings are the backbone's own; B1, after the last stage but one, is
    as deep as the stage it replaces and broader; B2, one stage further down, has half the blocks in its last stage.
    """
    *_, before_last, last = blueprint.depths
    stages = len(blueprint.depths)
    return (
        BranchSpec("B1", stages - 1, (last,), blueprint.broad),
        BranchSpec("B2", stages - 2, (before_last, -(-last // 2))),
    )


def twin(blueprint: Blueprint) -> BranchSpec:
    """A second network of the same architecture beside the first: Deep Mutual Learning (Zhang et al., CVPR 2018).

    Two networks that share nothing mimic each other, L = CE(B0) + KL(twin || B0) + CE(twin) + KL(B0 || twin), teachers
    constant. Trained here with the same batches in one joint update, from the predictions of one forward pass; the
    original updates one network, lets it predict anew, and then updates the other.
    """
    return BranchSpec("twin", IMAGE, blueprint.depths)


@contextmanager
def answering(net: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards every module is in the mode it had, an error or none."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():  # one by one, since `net.train` would give all of them the same
            module.training = mode


Backbone = TypeVar("Backbone", bound=nn.Module)
Root = TypeVar("Root", int, str)


class BranchingNet(nn.Module, ABC, Generic[Backbone, Root]):
    """A network that trains with side branches and answers without them.

    In training mode a call answers with the logits of every classifier, {"B0": (N, K), "B1": ...}, the deepest (B0)
    first. In eval mode it answers as the backbone does and runs no branch.

    Attributes:
        influence: what the gradients count that branches send back into the trunk, a number or, where the network is
            compiled, a tensor of one; read at each pass. With 0 here and as the loss's `mimic_scale` B0 learns as the
            plain network does, so a schedule of both lets branches grow into a trained network.

    Args:
        backbone: the network, left as it is.
        branches: name -> (root, module from the root's representation to logits), the deepest first.

    Raises:
        InputError: a name no branch can have.
    """

    influence: float | torch.Tensor = 1.0

    def __init__(self, backbone: Backbone, branches: Mapping[str, tuple[Root, nn.Module]]) -> None:
        super().__init__()
        for name in branches:
            check_name(name)
        self.backbone = backbone
        self.roots: dict[str, Root] = {name: root for name, (root, _) in branches.items()}
        self.branches = nn.ModuleDict({name: branch for name, (_, branch) in branches.items()})
        keep_clear(self)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of all classifiers in the order of the logits."""
        return (MAIN, *self.roots)

    @abstractmethod
    def all_logits(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """What the backbone takes, images (N, C, H, W) first -> logits (N, K) of every classifier, in either mode."""

    def forward(self, x: Any = None, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor] | torch.Tensor:
        if x is not None or args:  # else all of it is given by name
            args = (x, *args)
        return self.all_logits(*args, **kwargs) if self.training else self.backbone(*args, **kwargs)

    def for_branch(self, representation: torch.Tensor) -> torch.Tensor:
        """What the trunk gives as a branch takes it: the same values, and gradients that count `influence`.

        Raises:
            InputError: that is no number.
        """
        if not isinstance(self.influence, torch.Tensor):
            if not isinstance(self.influence, int | float) or not math.isfinite(self.influence):
                raise InputError(f"influence must be a finite number, not {self.influence!r}")
            if self.influence == 1:
                return representation
            return representation.detach().lerp(representation, self.influence)
        return representation.detach().lerp(representation, self.influence.to(representation))

    def main_only(self) -> Backbone:
        """The plain backbone, sharing its weights with this network."""
        return self.backbone

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by owner; the trunk that branches share belongs to B0."""
        owners: dict[str, nn.Module] = {MAIN: self.backbone, **self.branches}
        return {name: list(module.parameters()) for name, module in owners.items()}


class BranchedNet(BranchingNet[StagedNet, int]):
    """A network of the paper with side branches: its roots are stages, and its branches ordered by them.

    Args:
        backbone: the network, left as it is.
        branches: name -> (root, module from the root's representation to logits), in any order.
    """

    def __init__(self, backbone: StagedNet, branches: Mapping[str, tuple[int, nn.Module]]) -> None:
        super().__init__(backbone, dict(sorted(branches.items(), key=lambda branch: -branch[1][0])))

    def all_logits(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, C, H, W) -> logits (N, K) of every classifier, in either mode."""
        inner = self.representations(x)
        logits = {MAIN: self.backbone.classifier(self.backbone.descriptor(inner[max(inner)]))}
        for name, root in self.roots.items():
            logits[name] = self.branches[name](self.for_branch(inner[root]))
        return logits

    def representations(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        """What a branch can start from, by root: the images, the stem's output, every stage's output."""
        return dict(enumerate([x, *self.backbone.representations(x)], start=IMAGE))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Images -> B0's descriptor before its classifier, (N, features)."""
        return self.backbone.features(x)

    def body(self) -> nn.ModuleList:
        """B0 but for its classifier: what pre-trained weights are put into."""
        return nn.ModuleList([self.backbone.stem, *self.backbone.stages, self.backbone.head[:-1]])


@dataclass(frozen=True)
class Plan:
    """A network with side branches before it is built.

    Attributes:
        blueprint: of the backbone.
        specs: of the branches.
        alone: `MAIN`, or the branch that is built alone with the trunk below it, as the main branch of a network of
            its own (Table 5, "independent").

    Raises:
        InputError: a spec names a stage the network does not have, or the wrong number of later stages; or there is no
            branch of that name.
    """

    blueprint: Blueprint
    specs: tuple[BranchSpec, ...]
    alone: str = MAIN

    def __post_init__(self) -> None:
        stages = len(self.blueprint.depths)
        for depths in (self.blueprint.depths, *(spec.depths for spec in self.specs)):
            if sum(depths) > MOST_BLOCKS:
                raise InputError(
                    f"a network of {sum(depths):,} blocks is deeper than the {MOST_BLOCKS:,} that are built"
                )
        for spec in self.specs:
            if not IMAGE <= spec.root <= stages:
                raise InputError(
                    f"branch {spec.name}: root must be a stage from 0 to {stages} (or {IMAGE}, the image), "
                    f"not {spec.root}"
                )
            if len(spec.depths) not in (0, stages - spec.shared) or any(depth < 1 for depth in spec.depths):
                raise InputError(
                    f"branch {spec.name}: depths must give a positive number of blocks for each of the "
                    f"{stages - spec.shared} stages after stage {spec.shared} (or nothing, for a bare classifier), "
                    f"not {list(spec.depths)}"
                )
        names = [spec.name for spec in self.specs]
        if len({*names}) < len(names):
            raise InputError(f"branch names must differ, not {names}")
        if self.alone not in (MAIN, *names):
            raise InputError(f"isolated must be one of {', '.join([MAIN, *names])}, not {self.alone!r}")

    def build(self, num_classes: int) -> BranchedNet:
        """The network with weights drawn anew.

        The backbone is drawn first, so a seed gives B0 the same first weights with any set of branches.

        Raises:
            InputError: there is no room for it.
        """
        try:
            return self._built(num_classes)
        except RuntimeError as error:
            if ran_out(error):
                raise InputError(f"the network is too large to be built ({error})") from None
            raise

    def _built(self, num_classes: int) -> BranchedNet:
        blueprint = replace(self.blueprint, num_classes=num_classes)
        if self.alone != MAIN:
            spec = next(spec for spec in self.specs if spec.name == self.alone)
            return BranchedNet(blueprint.pathway(spec.shared, spec.depths, spec.width), {})
        backbone = blueprint.network()

        def tower(spec: BranchSpec) -> StagedNet:
            if spec.root == IMAGE:
                return blueprint.pathway(0, spec.depths, spec.width)
            return blueprint.tail(spec.root, backbone.channels[spec.root], spec.depths, spec.width)

        return BranchedNet(backbone, {spec.name: (spec.root, tower(spec)) for spec in self.specs})
