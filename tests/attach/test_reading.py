"""What is read of a network: its classifier, where gradients stop, which of its tensors a branch needs, its modes."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import dhm

IMAGES, TARGET = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)


class Net(nn.Module):
    """Three convolutions, each at a resolution of its own; what is special about a network comes in a subclass."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.fc = nn.Linear(32, classes)

    def before(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x).relu()

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(x).relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.c(self.middle(self.before(x))).relu().mean((2, 3)))


# the classifier


def convolutions(*last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), *last,
    )  # fmt: skip


@pytest.mark.parametrize(
    "last",
    [
        (nn.Conv2d(64, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (nn.Dropout(), nn.Conv2d(64, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),  # SqueezeNet
        (nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 10, 1), nn.Flatten()),
        (nn.Conv2d(64, 10, 8), nn.Flatten()),  # as large as its map
        (nn.Sequential(nn.Conv2d(64, 10, 1), nn.AdaptiveAvgPool2d(1)), nn.Flatten()),
    ],
)
@pytest.mark.parametrize("width", [2.0, 1.5])
def test_width_is_told_as_it_is_where_a_convolution_classifies(last: tuple[nn.Module, ...], width: float) -> None:
    grown = dhm.attach(convolutions(*last), image_size=32, seed=0, width=width)
    outputs = [part.out_channels for part in grown.branches["B1"].modules() if isinstance(part, nn.Conv2d)]
    assert outputs == [64 * width, 64 * width, 10]
    assert grown.branches["B1"].width == width
    assert f"x {width:g}" in grown.describe()
    assert "not widened" not in grown.describe()


def test_a_convolution_as_large_as_its_map_is_no_stage() -> None:
    """Fully connected layers in the form of convolutions, as timm's VGG ends."""
    head = (nn.Conv2d(64, 48, 8), nn.ReLU(True), nn.Conv2d(48, 48, 1), nn.ReLU(True), nn.Flatten(), nn.Linear(48, 10))
    grown = dhm.attach(convolutions(*head), image_size=32, seed=0)
    assert list(grown.roots.values()) == ["4", "1"]
    outputs = [part.out_channels for part in grown.branches["B1"].modules() if isinstance(part, nn.Conv2d)]
    assert outputs == [128, 128, 48, 48]


class Activated(nn.Module):
    """A convolution whose activation runs outside it, in place."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def test_a_block_left_out_between_two_changes_in_place() -> None:
    """Without a block, its activation would work on what the activation before it still needs; B2 is checked whole."""
    module = nn.Sequential(
        Activated(3, 8), nn.ReLU(True), Activated(8, 8, 2), nn.ReLU(True), Activated(8, 16, 2), nn.Sigmoid(),
        Activated(16, 16), nn.SiLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    grown = dhm.attach(module, image_size=32, seed=0)
    branch = grown.branches["B2"]
    assert branch.blocks == (1, 2)
    own = dict(branch.named_parameters())
    given = torch.randn(4, 8, 32, 32)
    dhm.attach(module, image_size=32, seed=0).train()(IMAGES)["B2"].sum().backward()
    gradients = torch.autograd.grad(branch(given, IMAGES.shape[1:]).square().sum(), list(own.values()))

    def conv(x: torch.Tensor, at: int) -> torch.Tensor:
        return F.conv2d(x, own[f"net.{at}.conv.weight"], own[f"net.{at}.conv.bias"], 2, 1)

    x = F.silu(torch.sigmoid(conv(F.relu(conv(given, 2)), 4))).mean((2, 3))
    by_hand = torch.autograd.grad(
        F.linear(x, own["net.10.weight"], own["net.10.bias"]).square().sum(), list(own.values())
    )
    for ours, theirs in zip(gradients, by_hand, strict=True):
        torch.testing.assert_close(ours, theirs)


# where gradients stop


class Frozen(Net):
    def before(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.a(x).relu()


class Detached(Net):
    def before(self, x: torch.Tensor) -> torch.Tensor:
        return super().before(x).detach()


class Reentrant(Net):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.b, x, use_reentrant=True).relu()


class ReentrantInTraining(Net):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return (checkpoint(self.b, x, use_reentrant=True) if self.training else self.b(x)).relu()


@pytest.mark.parametrize(
    ("net", "at", "sentence"),
    [
        (Frozen, None, "Frozen cannot be branched: gradients stop at a, by torch.no_grad, "),
        (Frozen, ["b"], "gradients stop at a, .* freeze weights by requires_grad_"),
        (Detached, None, "Detached cannot be branched: gradients stop after a, by"),
        (Reentrant, None, "Reentrant cannot be branched automatically: gradients stop at b, .* use_reentrant=False"),
        (Reentrant, ["b"], "no branch can be grown from b: gradients stop there, by"),
        (ReentrantInTraining, None, "cannot be branched automatically: gradients stop at b"),
        (ReentrantInTraining, ["b"], "no branch can be grown from b: gradients stop there, by"),
    ],
)
def test_where_gradients_stop_is_named(net: type[Net], at: list[str] | None, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        dhm.attach(net(), at, image_size=32)


class Recomputing(Net):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(super().middle, x, use_reentrant=False)


def gradients(net: nn.Module) -> list[torch.Tensor]:
    dhm.DHMLoss()(net.train()(IMAGES), TARGET)[0].backward()
    return [p.grad for p in net.parameters()]


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


# what a branch owns


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


# modes


class Descriptors(Net):
    """Features in eval mode and logits in training mode, as in re-identification."""

    def __init__(self, always_logits: bool = False) -> None:
        super().__init__(751)
        self.always_logits = always_logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.c(self.middle(self.before(x))).relu().mean((2, 3))
        return self.fc(features) if self.training or self.always_logits else features


def test_a_network_is_read_in_the_mode_that_gives_logits() -> None:
    two, one = (dhm.attach(Descriptors(always), image_size=64, seed=0) for always in (False, True))
    assert two.describe() == one.describe()
    assert two.branches["B1"].width == 2
    assert {name: z.shape for name, z in two.train()(IMAGES).items()} == dict.fromkeys(("B0", "B1", "B2"), (4, 751))
    assert two.eval()(IMAGES).shape == (4, 32)
    with pytest.raises(dhm.InputError, match=r"branch B1 answers with the shape \(4, 64\), the network itself with"):
        two.all_logits(IMAGES)


def test_reading_in_training_mode_leaves_no_trace() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Dropout(), Descriptors())
    module[3].a = nn.Conv2d(8, 8, 3, 1, 1)
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    dhm.attach(module.eval(), image_size=64, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not any(part.training for part in module.modules())


# compiled code


class Broken(Net):
    """Its code cannot be compiled in one piece."""

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return super().middle(x)


@pytest.mark.parametrize(("kind", "what"), [*itertools.product([Net, Broken], ["attached", "called", "in place"])])
def test_compiled_code_of_the_plain_network_does_not_stand_in_the_way(kind: type[Net], what: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    baseline, module = kind(), kind()
    F.cross_entropy(torch.compile(baseline, backend="eager")(IMAGES), TARGET).backward()
    expected = dhm.attach(module, image_size=32, seed=0).train()(IMAGES)
    if what == "attached":
        net = torch.compile(dhm.attach(module, image_size=32, seed=0).train(), backend="eager")
    elif what == "called":
        compiled = torch.compile(module, backend="eager")
        compiled(IMAGES)
        net = dhm.attach(compiled, image_size=32, seed=0).train()
    else:
        module.compile(backend="eager")
        module(IMAGES)
        net = dhm.attach(module, image_size=32, seed=0).train()
    for _ in range(2):
        for name, logits in net(IMAGES).items():
            torch.testing.assert_close(logits, expected[name])
    total, _ = dhm.DHMLoss()(net(IMAGES), TARGET)
    total.backward()
    assert all(p.grad is not None for p in net.parameters())
    torch.testing.assert_close(torch.compile(baseline, backend="eager")(IMAGES), baseline(IMAGES))
