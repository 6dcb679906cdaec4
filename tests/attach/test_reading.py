"""What is read of a network: its classifier, its blocks, where gradients stop, the mode that gives logits."""

import pytest
import torch
from three_convolutions import IMAGES, Net
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dhm


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
    gradients = torch.autograd.grad(branch(given, IMAGES).square().sum(), list(own.values()))

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


class ReentrantFromItsNorm(Net):
    """What is recomputed begins with something else than a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda x: self.b(self.norm(x)), x, use_reentrant=True).relu()


class Within(nn.Module):
    """A stage that recomputes itself; its own output is outside of that."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.conv, x, use_reentrant=True)


def test_a_stage_that_recomputes_itself_may_be_reentrant() -> None:
    module = Net()
    module.b = Within()
    net = dhm.attach(module, image_size=32, seed=0)
    assert list(net.roots.values()) == ["b", "a"]
    net.train()(IMAGES)["B1"].sum().backward()
    assert module.a.weight.grad.any()
    with pytest.raises(dhm.InputError, match=r"no branch can be grown from b\.conv: gradients stop there, by"):
        dhm.attach(module, ["b.conv"], image_size=32)


@pytest.mark.parametrize(
    ("net", "at", "sentence"),
    [
        (Frozen, None, "Frozen cannot be branched: gradients stop at a, by torch.no_grad, "),
        (Frozen, ["b"], "gradients stop at a, .* freeze weights by requires_grad_"),
        (Detached, None, "Detached cannot be branched: gradients stop after a, by"),
        (Reentrant, None, "Reentrant cannot be branched automatically: gradients stop at b, .* use_reentrant=False"),
        (Reentrant, ["b"], "no branch can be grown from b: gradients stop there, by"),
        (ReentrantFromItsNorm, None, "cannot be branched automatically: gradients stop at b"),
        (ReentrantFromItsNorm, ["b"], "no branch can be grown from b: gradients stop there, by"),
        (ReentrantInTraining, None, "cannot be branched automatically: gradients stop at b"),
        (ReentrantInTraining, ["b"], "no branch can be grown from b: gradients stop there, by"),
    ],
)
def test_where_gradients_stop_is_named(net: type[Net], at: list[str] | None, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        dhm.attach(net(), at, image_size=32)


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
