"""Branches that learn first: what changes and what must not, and what is refused."""

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torchvision
from three_convolutions import Net
from torch import nn
from torch.nn import functional as F

import dhm
from dhm.errors import NonFiniteLoss

Batch = tuple[torch.Tensor, torch.Tensor]


class Normed(Net):
    """With batch norm and dropout, whose statistics and draws would tell of a pass in training mode."""

    def __init__(self) -> None:
        super().__init__(classes=4)
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout(0.5)

    def before(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(self.a(x)).relu())


def batches(count: int = 4, size: int = 16, seed: int = 0) -> list[Batch]:
    """Four classes, told by the sign of two channels."""
    rng = torch.Generator().manual_seed(seed)
    given = []
    for _ in range(count):
        target = torch.randint(0, 4, (size,), generator=rng)
        images = torch.randn(size, 3, 32, 32, generator=rng)
        images[:, 0] += (2 * (target % 2) - 1)[:, None, None]
        images[:, 1] += (2 * (target // 2) - 1)[:, None, None]
        given.append((images, target))
    return given


@pytest.fixture
def net() -> dhm.AttachedNet:
    torch.manual_seed(0)
    return dhm.attach(Normed(), image_size=32, seed=0)


def bits(module: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(module.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def settings(net: nn.Module) -> tuple[dict[str, bool], dict[str, bool]]:
    return (
        {name: module.training for name, module in net.named_modules()},
        {name: parameter.requires_grad for name, parameter in net.named_parameters()},
    )


def test_branches_learn_and_the_network_keeps_its_bits(net: dhm.AttachedNet) -> None:
    """The plain network, its gradients, modes and flags stay; the branches come to know images they have not seen."""
    net.train()
    net.backbone.norm.eval()
    net.backbone.a.weight.requires_grad_(False)
    net.backbone.b.weight.grad = torch.full_like(net.backbone.b.weight, 3.0)
    plain, before = bits(net.backbone), settings(net)
    seen = dhm.warm_up_branches(net, batches(), 40, progress=False)
    assert len(seen) == 40
    assert same(bits(net.backbone), plain)
    assert settings(net) == before
    assert torch.equal(net.backbone.b.weight.grad, torch.full_like(net.backbone.b.weight, 3.0))
    assert all(parameter.grad is None for parameter in net.branches.parameters())
    ((images, target),) = batches(1, size=200, seed=9)
    with torch.no_grad():
        right = {
            head: float((z.argmax(1) == target).float().mean()) for head, z in net.eval().all_logits(images).items()
        }
    assert min(right["B1"], right["B2"]) > 0.6 > 0.45 > right["B0"]


def test_it_minimises_what_a_loop_of_ones_own_minimises(net: dhm.AttachedNet) -> None:
    """Losses and weights equal those of a loop with the same optimizer on the branches, given the trunk's maps."""
    again, loss, maps = copy.deepcopy(net), dhm.DHMLoss(temperature=2.0), {}
    seen = dhm.warm_up_branches(
        net, batches(2), 3, loss=loss, optimizer=lambda p: torch.optim.SGD(p, 0.1), progress=False
    )
    for name, root in again.roots.items():
        again.backbone.get_submodule(root).register_forward_hook(
            lambda module, args, output, name=name: maps.update({name: output.clone()})
        )
    optimizer, told = torch.optim.SGD(again.branches.parameters(), 0.1), []
    again.backbone.eval()
    for images, target in (*batches(2), batches(2)[0]):
        with torch.no_grad():
            main = again.backbone(images)
        total, _ = loss(
            {"B0": main} | {name: branch.train()(maps[name]) for name, branch in again.branches.items()}, target
        )
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        told.append(total.item())
    assert seen == pytest.approx(told, rel=1e-5)
    for name, value in net.branches.state_dict().items():
        torch.testing.assert_close(value, again.branches.state_dict()[name])


def failing(error: BaseException) -> Iterator[Batch]:
    yield from batches(2)
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a broken disk")])
def test_all_is_as_it_was_when_it_is_stopped(net: dhm.AttachedNet, error: BaseException) -> None:
    net.eval()
    net.backbone.fc.bias.requires_grad_(False)
    plain, before = bits(net.backbone), settings(net)
    with pytest.raises(type(error)):
        dhm.warm_up_branches(net, failing(error), 5, progress=False)
    assert same(bits(net.backbone), plain)
    assert settings(net) == before


def test_what_a_branch_shares_with_the_network_is_held(net: dhm.AttachedNet) -> None:
    """A hand-written branch may use the network's own norm and classifier; it learns in what is its own."""
    net = net.backbone
    own = nn.Sequential(
        nn.Conv2d(8, 8, 1), net.norm, nn.Conv2d(8, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.fc
    )
    attached = dhm.attach(net, branches={"B1": ("a", own)})
    plain, first = bits(net), own[0].weight.clone()
    dhm.warm_up_branches(attached, batches(), 3, progress=False)
    assert same(bits(net), plain)
    assert not torch.equal(own[0].weight, first)


def test_a_frozen_stem_stays_frozen_and_the_branches_learn_in_any_mode() -> None:
    """A torchvision network whose first layers are frozen, taken over in eval mode, on a caller's no_grad."""
    torch.manual_seed(0)
    trained = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4).eval()
    for parameter in (*trained.conv1.parameters(), *trained.bn1.parameters(), *trained.layer1.parameters()):
        parameter.requires_grad_(False)
    net = dhm.attach(trained, image_size=32, seed=0)
    plain, before = bits(trained), settings(net)
    with torch.no_grad():
        seen = dhm.warm_up_branches(net, batches(2), 12, progress=False)
    assert seen[-1] < seen[0]
    assert same(bits(trained), plain)
    assert settings(net) == before


def test_a_network_of_the_paper_and_mixed_targets() -> None:
    """Zoo networks too; probabilities where labels stood; a criterion that gives the scalar alone."""

    class Alone(dhm.DHMLoss):
        def forward(self, *given):  # type: ignore[override]
            return super().forward(*given)[0]

    net = dhm.create_model("cifar_resnet", num_classes=4, depth=8)
    plain = bits(net.backbone)
    mixed = [(images, F.one_hot(target, 4) * 0.8 + 0.05) for images, target in batches(2)]
    seen = dhm.warm_up_branches(net, mixed, 12, loss=Alone(), progress=False)
    assert seen[-1] < seen[0]
    assert same(bits(net.backbone), plain)


class Embedding(Normed):
    """Answers with features in eval mode, as networks for re-identification do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.c(self.middle(self.before(x))).relu().mean((2, 3))
        return self.fc(features) if self.training else features


def test_a_network_that_gives_logits_in_training_mode_alone() -> None:
    net = dhm.attach(Embedding(), image_size=32, seed=0)
    plain, before = bits(net.backbone), settings(net)
    seen = dhm.warm_up_branches(net, batches(), 30, progress=False)
    assert seen[-1] < seen[0]
    assert same(bits(net.backbone), plain)
    assert settings(net) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda net: {"net": net.main_only()}, "not on a Normed"),
        (lambda net: {"net": nn.DataParallel(net)}, "not on a DataParallel"),
        (lambda net: {"net": dhm.AttachedNet(net.main_only(), {})}, "nothing to warm up"),
        (lambda net: {"net": net.requires_grad_(False)}, "nothing to warm up"),
        (lambda net: {"steps": 0}, "not 0"),
        (lambda net: {"steps": 2.5}, "not 2.5"),
        (lambda net: {"batches": []}, "0 of 10"),
        (lambda net: {"batches": iter(batches(3))}, "3 of 10"),
        (lambda net: {"batches": [{"image": 1, "label": 2}]}, "not a dict"),
        (lambda net: {"batches": [torch.zeros(2, 3, 32, 32)]}, "not a Tensor"),
        (lambda net: {"batches": 5}, "not of type int"),
        (lambda net: {"loss": dhm.DHMLoss("baseline")}, "reaches no branch"),
    ],
)
def test_what_cannot_be_warmed_up_is_told(
    net: dhm.AttachedNet, change: Callable[[dhm.AttachedNet], dict], told: str
) -> None:
    given = {"net": net, "batches": batches(), "steps": 10, "progress": False} | change(net)
    before = settings(net)
    with pytest.raises(dhm.InputError, match=told):
        dhm.warm_up_branches(**given)
    assert settings(net) == before


def test_a_rate_that_is_too_high_is_told(net: dhm.AttachedNet) -> None:
    plain = bits(net.backbone)
    with pytest.raises(NonFiniteLoss, match="step"):
        dhm.warm_up_branches(net, batches(), 50, optimizer=lambda p: torch.optim.SGD(p, 1e20), progress=False)
    assert same(bits(net.backbone), plain)


def test_under_autocast_it_learns_from_its_newest_weights(net: dhm.AttachedNet) -> None:
    """Autocast keeps the weights it has cast until it ends; kept for all steps they would be those of the first."""
    fast = partial(torch.optim.Adam, lr=0.01)
    full = dhm.warm_up_branches(copy.deepcopy(net), batches(), 12, optimizer=fast, progress=False)
    with torch.autocast("cpu", torch.bfloat16):
        half = dhm.warm_up_branches(net, batches(), 12, optimizer=fast, progress=False)
    assert half == pytest.approx(full, rel=0.05)


def test_branches_with_lazy_layers_learn_and_then_train_with_the_network(net: dhm.AttachedNet) -> None:
    own = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(4))
    lazy = dhm.attach(net.main_only(), branches={"B1": ("b", own)})
    seen = dhm.warm_up_branches(lazy, batches(), 30, progress=False)
    assert seen[-1] < seen[0]
    assert set(lazy.train()(batches(1)[0][0])) == {"B0", "B1"}
    untouched = dhm.attach(net.main_only(), branches={"B1": ("b", nn.Sequential(nn.LazyConv2d(4, 16), nn.Flatten()))})
    assert untouched.train()(batches(1)[0][0])["B1"].shape == (16, 4)


def test_training_goes_on_as_if_nothing_had_been_trained_before(net: dhm.AttachedNet) -> None:
    """What watches the first steps of a training tells of a forgotten branch after a warm-up, and of nothing else."""
    dhm.warm_up_branches(net, batches(), 3, progress=False)
    for parameters in (net.parameters(), net.backbone.parameters()):
        fresh, loss = copy.deepcopy(net).train(), dhm.DHMLoss()
        own = dict(net.named_parameters())
        wanted = {id(parameter) for parameter in parameters}
        optimizer = torch.optim.SGD([p for name, p in fresh.named_parameters() if id(own[name]) in wanted], lr=0.01)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for images, target in batches():
                optimizer.zero_grad()
                loss(fresh(images), target)[0].backward()
                optimizer.step()
        assert [str(warning.message)[:24] for warning in told] == (
            [] if len(wanted) == len(own) else ["a step has moved the net"]
        )
