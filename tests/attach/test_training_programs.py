"""An attached network in other people's training programs: arguments, settings, copies, and mistakes told at once."""

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import timm
import torch
from three_convolutions import IMAGES, TARGET, Net
from timm.data import resolve_data_config
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from torch import nn
from torch.utils.checkpoint import checkpoint

import dhm


class Scaled(Net):
    """Takes more than images: numbers and tensors, before the root and after it, by place and by name."""

    def forward(
        self,
        x: torch.Tensor,
        scale: float = 1.0,
        *,
        shift: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = x if mask is None else x * mask
        logits = super().forward(x) * scale
        return logits if shift is None else logits + shift


def as_the_network(net: dhm.AttachedNet) -> dhm.AttachedNet:
    """Its branches given the network's own weights."""
    own = net.backbone.state_dict()
    for branch in net.branches.values():
        branch.net.load_state_dict({name: own[name] for name in branch.net.state_dict()})
    return net


CALLS = {
    "by place": ((0.5,), {}),
    "by name": ((), {"scale": 0.5}),
    "tensors": ((), {"shift": torch.arange(4.0)[:, None], "mask": torch.rand(4, 1, 32, 32)}),
}


@pytest.mark.parametrize("call", CALLS)
def test_arguments_reach_the_network_and_its_branches(call: str) -> None:
    args, kwargs = CALLS[call]
    net = as_the_network(dhm.attach(Scaled(), image_size=32, width=1.0))
    expected = net.backbone(IMAGES, *args, **kwargs)
    assert not torch.equal(expected, net.backbone(IMAGES))
    for logits in net.train()(IMAGES, *args, **kwargs).values():
        torch.testing.assert_close(logits, expected)
    for answer in (net.eval()(IMAGES, *args, **kwargs), net(x=IMAGES, scale=args[0] if args else 1.0, **kwargs)
                   if call != "by name" else net(x=IMAGES, **kwargs)):  # fmt: skip
        torch.testing.assert_close(answer, expected)


class OfDict(Net):
    def forward(self, batch: dict | None = None, pixel_values: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(batch["pixel_values"] if batch else pixel_values)


def test_batches_in_a_dict_or_by_name() -> None:
    own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    net = dhm.attach(OfDict(), branches={"B1": ("b", own)}).train()
    one, other = net({"pixel_values": IMAGES}), net(pixel_values=IMAGES)
    assert all(torch.equal(one[head], other[head]) for head in ("B0", "B1"))
    assert torch.equal(net.eval()(pixel_values=IMAGES), one["B0"])


@pytest.mark.parametrize("name", ["tf_mobilenetv3_large_100", "xception41"])
def test_timm_reads_its_settings_through_the_attached_network(name: str) -> None:
    with torch.device("meta"):
        plain = timm.create_model(name, num_classes=6)
        net = dhm.attach(plain, image_size=64)
    assert resolve_data_config({}, model=net) == resolve_data_config({}, model=plain)
    assert (net.num_classes, net.num_features) == (plain.num_classes, plain.num_features)
    assert net.default_cfg is plain.default_cfg
    assert net.get_classifier() is plain.get_classifier()


def test_what_the_network_lacks_the_attached_one_lacks() -> None:
    net = dhm.attach(Net(), image_size=32)
    asked = ("pretrained_cfg", "num_classes", "no_weight_decay", "group_matcher", "set_grad_checkpointing")
    assert not [name for name in asked if hasattr(net, name)]
    with pytest.raises(AttributeError, match="'AttachedNet' object has no attribute 'num_classes'"):
        _ = net.num_classes


def settings(net: nn.Module, **how) -> dict[str, tuple[float, float]]:
    """Weight decay and scale of the learning rate, by parameter."""
    names = {id(p): name for name, p in net.named_parameters()}
    groups = create_optimizer_v2(net, opt="adamw", lr=1e-3, weight_decay=0.05, **how).param_groups
    return {names[id(p)]: (g["weight_decay"], g.get("lr_scale", 1.0)) for g in groups for p in g["params"]}


@pytest.mark.parametrize("how", [{}, {"layer_decay": 0.7}])
@pytest.mark.parametrize("name", ["tiny_vit_5m_224", "resnet18", "efficientnet_b0", "convnext_atto"])
def test_timm_gives_the_optimizer_what_it_gives_for_the_plain_network(name: str, how: dict) -> None:
    """A parameter of a branch is treated as the network's own of this name."""
    with torch.device("meta"):
        plain = timm.create_model(name, num_classes=6)
        net = dhm.attach(plain)
    expected, ours = settings(plain, **how), settings(net, **how)
    assert len(ours) > 1.1 * len(expected)
    for own, value in ours.items():
        assert value == expected[own.removeprefix("backbone.").split(".net.")[-1]], own


def test_a_matcher_that_is_a_function() -> None:
    net = dhm.attach(Net(), image_size=32)
    plain = {"a": 0, "b": 1, "c": 2, "fc": 3}
    net.backbone.group_matcher = lambda coarse=False: lambda name: plain[name.split(".")[0]]
    layers = group_parameters(net, net.group_matcher(coarse=True), reverse=True)
    assert layers["backbone.b.weight"] == 1
    assert layers["branches.B1.net.c.weight"] == 2


def gradients(net: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    net.zero_grad()
    dhm.DHMLoss()(net(images), TARGET)[0].backward()
    return {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("before", [True, False])
def test_grad_checkpointing_switched_on_through_it_changes_no_gradient(before: bool) -> None:
    torch.manual_seed(0)
    module = timm.create_model("convnext_atto", num_classes=6, depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))
    images = torch.randn(4, 3, 64, 64)
    expected = gradients(dhm.attach(module, image_size=64, seed=0).train(), images)
    if before:
        module.set_grad_checkpointing()
    net = dhm.attach(module, image_size=64, seed=0).train()
    net.set_grad_checkpointing()
    assert module.stages[2].grad_checkpointing
    for name, gradient in gradients(net, images).items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_checkpointing_that_passes_a_root_by_is_told_at_the_first_step() -> None:
    """timm's ResNets run the blocks of their stages themselves then, and a root is a stage."""
    net = dhm.attach(timm.create_model("test_resnet", num_classes=6), image_size=64).train()
    net.set_grad_checkpointing()
    with pytest.raises(dhm.InputError, match=r"gave no tensor .* by checkpointing, say, attach after that"):
        net(torch.randn(4, 3, 64, 64))
    again = dhm.attach(net.main_only(), image_size=64).train()
    assert all(gradient is not None for gradient in gradients(again, torch.randn(4, 3, 64, 64)).values())


class Recomputed(Net):
    """Its middle can be recomputed, in the way that cuts gradients from what listens inside."""

    reentrant = False

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(super().middle, x, use_reentrant=True) if self.reentrant else super().middle(x)


@pytest.mark.filterwarnings("ignore:None of the inputs")  # torch's, of the part that is frozen
def test_reentrant_checkpointing_switched_on_after_attach_is_told_at_the_first_step() -> None:
    net = dhm.attach(Recomputed(), ["b"], image_size=32).train()
    net(IMAGES)
    net.backbone.reentrant = True
    with pytest.raises(dhm.InputError, match=r"B1 cannot teach what is before its root: .* use_reentrant=False"):
        net(IMAGES)
    net.backbone.requires_grad_(False)  # nothing there to teach
    net.backbone.fc.requires_grad_(True)
    net(IMAGES)


def test_attaching_twice_is_told() -> None:
    net = dhm.attach(Net(), image_size=32)
    wrapped = nn.Sequential(nn.Identity(), net)
    for twice in (net, torch.compile(net), wrapped, dhm.create_model("cifar_resnet", 10, depth=8)):
        with pytest.raises(dhm.InputError, match=r"has branches already; attach to its main_only\(\)"):
            dhm.attach(twice)
    dhm.attach(net.main_only(), image_size=32)


def steps(net: dhm.AttachedNet, optimizers: Callable, count: int = 3, every: int = 1, zero: str = "optimizer") -> list:
    """Warnings of a training loop, with the number of the pass each came in."""
    told, parts = [], optimizers(net)
    for step in range(count):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            logits = net(IMAGES)
        told += [(step, str(warning.message)) for warning in caught]
        dhm.DHMLoss()(logits, TARGET)[0].backward()
        if (step + 1) % every == 0:
            for optimizer in parts:
                optimizer.step()
                optimizer.zero_grad()
            if zero == "net":
                net.zero_grad()
    return told


@pytest.mark.parametrize("zero", ["optimizer", "net"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_made_before_attach_is_told_after_its_first_step(kind: type, every: int, zero: str) -> None:
    module = Net()
    optimizer = kind(module.parameters(), lr=0.01)
    told = steps(dhm.attach(module, image_size=32).train(), lambda net: [optimizer], 3 * every, every, zero)
    assert [step for step, _ in told] == [every]  # once
    assert "left B1, B2 as they were, which had gradients: make the optimizer after attach" in told[0][1]


def some_frozen(net: dhm.AttachedNet) -> list[torch.optim.Optimizer]:
    net.branches["B2"].requires_grad_(False)
    return [torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)]


def trunk_held(net: dhm.AttachedNet) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(net.branches.parameters(), lr=0.1)]


def one_each(net: dhm.AttachedNet) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adam(group) for group in net.parameter_groups().values()]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("zero", ["optimizer", "net"])
@pytest.mark.parametrize(
    "optimizers",
    [some_frozen, trunk_held, one_each, lambda net: [],  # a step that a scaler skips
     lambda net: [torch.optim.SGD(net.parameters(), lr=0.0)],
     lambda net: [torch.optim.SGD(net.parameters(), lr=0.1, foreach=True)],
     lambda net: [torch.optim.Adam(net.parameters(), fused=True)]],
)  # fmt: skip
def test_what_moves_every_branch_that_learns_is_no_mistake(optimizers: Callable, zero: str, every: int) -> None:
    assert steps(dhm.attach(Net(), image_size=32).train(), optimizers, 5, every, zero) == []


def test_copies_weights_and_other_losses_between_steps_are_no_mistake() -> None:
    net = dhm.attach(Net(), image_size=32).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dhm.DHMLoss()(net(IMAGES), TARGET)[0].backward()
        net.load_plain(Net().state_dict())
        net(IMAGES)
        copy.deepcopy(net)(IMAGES)
        dhm.DHMLoss("baseline")(net(IMAGES), TARGET)[0].backward()
        torch.optim.SGD(net.backbone.parameters(), lr=0.1).step()
        net(IMAGES)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies_and_files_of_the_network_alone_are_of_its_own_classes(again: Callable) -> None:
    module = timm.create_model("test_resnet", num_classes=6)
    root = dhm.attach(module, image_size=64).roots["B1"]
    kind = type(again(timm.create_model("test_resnet")).get_submodule(root))
    part = again(module).get_submodule(root)
    assert type(part) is kind
    assert isinstance(module.get_submodule(root), kind)
    assert vars(part).keys() == vars(timm.create_model("test_resnet").get_submodule(root)).keys()
    net = again(dhm.attach(module, image_size=64, seed=0))
    images = torch.randn(2, 3, 64, 64)
    expected = dhm.attach(module, image_size=64, seed=0).train()(images)
    for name, logits in net.train()(images).items():
        torch.testing.assert_close(logits, expected[name])
