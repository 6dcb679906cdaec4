"""What a branch holds of its network, and where its representation comes from when activations are recomputed."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from three_convolutions import IMAGES, TARGET, Net
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import dhm


def gradients(net: nn.Module) -> list[torch.Tensor]:
    dhm.DHMLoss()(net.train()(IMAGES), TARGET)[0].backward()
    return [p.grad for p in net.parameters()]


class Spanning(Net):
    """Tensors of the network's own, used before the root, after it, and on both sides of it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, 3, 1, 1))
        self.scale = nn.Parameter(torch.full((10,), 1.5))
        self.shift = nn.Parameter(torch.zeros(1))
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("prior", torch.linspace(-1, 1, 10))
        self.aside = nn.Linear(2, 2)  # runs in no pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.lerp_(x.detach().mean((0, 2, 3), keepdim=True), 0.1)
        return super().forward((x - self.mean) * self.gain + self.shift) * self.scale + self.prior + self.shift


def test_branches_own_what_their_answer_depends_on() -> None:
    module = Spanning()
    net = dhm.attach(module, image_size=32, seed=0)
    layers = {"c.weight", "c.bias", "fc.weight", "fc.bias"}
    for head, own in {"B1": layers, "B2": layers | {"b.weight", "b.bias"}}.items():
        branch = net.branches[head].net
        assert {name for name, _ in branch.named_parameters()} == own | {"scale", "shift"}
        assert set(branch.state_dict()) == own | {"scale", "shift", "prior"}
    module.aside.requires_grad_(False)
    assert all(
        gradient is not None for gradient, p in zip(gradients(net), net.parameters(), strict=True) if p.requires_grad
    )
    again = dhm.attach(Spanning(), image_size=32, seed=1)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(IMAGES), net.eval()(IMAGES))
    answers = net.all_logits(IMAGES)
    assert all(torch.equal(z, answers[name]) for name, z in again.all_logits(IMAGES).items())


def test_ddp_finds_no_parameter_without_a_gradient(tmp_path: Path) -> None:
    module = Spanning()
    del module.aside
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(dhm.attach(module, image_size=32, seed=0).train())
        for _ in range(2):
            dhm.DHMLoss()(wrapped(IMAGES), TARGET)[0].backward()
    finally:
        torch.distributed.destroy_process_group()


class LearnsMore(Net):
    """A part that only takes part in training, with the same shape of an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return self.noise(logits) if self.training else logits


def test_what_takes_part_in_training_alone_is_kept() -> None:
    net = dhm.attach(LearnsMore(), image_size=32, seed=0)
    assert {"noise.weight", "noise.bias"} <= {name for name, _ in net.branches["B2"].net.named_parameters()}
    assert all(gradient is not None for gradient in gradients(net))


class Asked(Net):
    """Its code asks modules before a root for what they note of themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.a.note = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.a.note * self.b.out_channels


def test_stand_ins_answer_what_is_asked_of_their_modules() -> None:
    net = dhm.attach(Asked(), image_size=32, seed=0)
    assert list(net.roots.values()) == ["b", "a"]
    assert all(gradient is not None for gradient in gradients(net))


class Tied(Net):
    """Two modules share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.d = nn.Conv2d(32, 32, 3, 1, 1)
        self.e = nn.Conv2d(32, 32, 3, 1, 1)
        self.e.weight = self.d.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.c(self.middle(self.before(x))).relu()
        return self.fc(self.e(self.d(x).relu()).mean((2, 3)))


@pytest.mark.parametrize("width", [1.0, 2.0])
def test_shared_weights_are_one_parameter_under_both_names(width: float) -> None:
    net = dhm.attach(Tied(), image_size=32, width=width, seed=0)
    branch = net.branches["B1"].net
    names = {name for name, _ in branch.named_parameters(remove_duplicate=False)}
    assert {"d.weight", "e.weight"} <= names
    assert branch.d.weight is branch.e.weight
    assert branch.d.weight.shape == (32 * width, 32 * width, 3, 3)
    assert all(gradient is not None for gradient in gradients(net))


class TiedToTheRoot(Tied):
    """What its branch shares weights with, takes the root's channels there and so is narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.c = nn.Conv2d(8, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 2, 1)
        self.c.weight = self.d.weight


def test_weights_shared_at_two_widths_keep_the_network_s() -> None:
    branch = dhm.attach(TiedToTheRoot(), image_size=32, seed=0).branches["B1"]
    assert branch.net.c.weight is branch.net.d.weight is branch.net.e.weight
    assert branch.width == 1
    assert "not widened" in branch.note


class Recomputing(Net):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(super().middle, x, use_reentrant=False)


def test_a_root_inside_what_is_recomputed_has_the_gradients_of_one_that_is_not() -> None:
    torch.manual_seed(0)
    plain, recomputing = Net(), Recomputing()
    recomputing.load_state_dict(plain.state_dict())
    ours, theirs = (dhm.attach(net, image_size=32, seed=0).train() for net in (recomputing, plain))
    for net in (ours, theirs):  # two passes before the backward pass, as some loops have it
        first, second = (dhm.DHMLoss()(net(images), TARGET)[0] for images in (IMAGES, IMAGES.flip(0)))
        (first + 2 * second).backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    frozen = copy.deepcopy(ours)
    frozen.main_only().requires_grad_(False)
    frozen.zero_grad()
    dhm.DHMLoss()(frozen(IMAGES), TARGET)[0].backward()
    assert all(p.grad is not None for p in frozen.branches.parameters())
    assert all(
        value is None for part in copy.deepcopy(frozen).modules() for key, value in vars(part).items() if key == "held"
    )


class InAList(Net):
    """Runs its layers by a list of its own, beside their names."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.hold()

    def hold(self) -> Any:
        return [self.a, self.b, self.c]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.held:
            x = layer(x).relu()
        return self.fc(x.mean((2, 3)))


class UnderASecondName(InAList):
    def hold(self) -> Any:
        return nn.ModuleList([self.a, self.b, self.c])


class BoundToAFunction(InAList):
    def hold(self) -> Any:
        return [functools.partial(lambda layer, x: layer(x), layer) for layer in (self.a, self.b, self.c)]


@pytest.mark.parametrize("kind", [InAList, UnderASecondName, BoundToAFunction])
def test_a_branch_starts_at_its_root_whatever_holds_it(kind: type[InAList]) -> None:
    """Against the branch by hand; weights of a wrong layer, or another start, would show in answer and gradients."""
    net = dhm.attach(kind(), image_size=32, seed=0)
    assert list(net.roots.values()) == ["b", "a"]
    own = [dict(branch.net.named_parameters()) for branch in net.branches.values()]

    def by_hand(layers: str, own: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            x = F.conv2d(x, own[f"{layer}.weight"], own[f"{layer}.bias"], 1 if layer == "a" else 2, 1).relu()
        return x

    plain, weights = dict(net.backbone.named_parameters()), [*net.backbone.a.parameters()]
    for name, layers, tensors in zip(("B1", "B2"), (("ab", "c"), ("a", "bc")), own, strict=True):
        inner = by_hand(layers[0], plain, IMAGES)
        # a root is the layer, before the activation of the network's own code
        theirs = F.linear(by_hand(layers[1], tensors, inner).mean((2, 3)), tensors["fc.weight"], tensors["fc.bias"])
        ours = net.train()(IMAGES)[name]
        torch.testing.assert_close(ours, theirs)
        for mine, other in zip(*(torch.autograd.grad(z.square().sum(), weights) for z in (ours, theirs)), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
