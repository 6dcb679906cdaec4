"""Networks that make their weights of others in every pass: pruned, normed, by hooks of one's own, lazy."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import dhm

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        block(3, 8, 1), block(8, 16, 2), block(16, 32, 2), block(32, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10),
    )  # fmt: skip


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def own_hook(layer: nn.Module) -> None:
    """Weight standardisation as people write it: a raw parameter, and a function that runs before the layer."""
    raw = layer._parameters.pop("weight")
    layer.register_parameter("raw", raw)
    layer.weight = raw.detach()

    def standardise(layer: nn.Module, given: object) -> None:
        layer.weight = layer.raw / layer.raw.std()

    layer.register_forward_pre_hook(standardise)


def pruned_twice(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", amount=0.3)
    prune.ln_structured(layer, "weight", amount=0.25, n=2, dim=0)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "L1Unstructured": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    "LnStructured": lambda layer: prune.ln_structured(layer, "weight", amount=0.5, n=1, dim=0),
    "PruningContainer": pruned_twice,
    "WeightNorm": weight_norm,
    "WeightNorm ": parametrizations.weight_norm,
    "SpectralNorm": spectral_norm,
    "SpectralNorm ": parametrizations.spectral_norm,
    "Orthogonal": parametrizations.orthogonal,
    "Doubled": lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
    "standardise": own_hook,
}


def changed(change: Callable[[nn.Module], object]) -> nn.Sequential:
    net = network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older of two ways to the same norm
        for layer in [part for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)]:
            change(layer)
    return net


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "ran"])
def test_branches_are_those_of_the_plain_network(name: str, ran: bool) -> None:
    """Shapes as of the same network with plain weights; all of them trained; B0 as it was."""
    module, other = changed(CHANGES[name]), changed(CHANGES[name])
    if ran:
        module(IMAGES), other(IMAGES)
    kinds = [type(part) for part in module.modules()]
    grown, plain = dhm.attach(module, image_size=32, seed=0), dhm.attach(network(), image_size=32, seed=0)
    assert all(isinstance(part, kind) for part, kind in zip(module.modules(), kinds, strict=True))
    for head, branch in plain.branches.items():
        ours = grown.branches[head]
        assert {key: p.shape for key, p in ours.named_parameters()} == {
            key: p.shape for key, p in branch.named_parameters()
        }
        assert ours.state_dict().keys() == branch.state_dict().keys()
    assert grown.branches["B1"].width == 2
    assert f"plain weights, without the network's {name.strip()}" in grown.describe()
    total, _ = dhm.DHMLoss()(grown.train()(IMAGES), torch.arange(4))
    total.backward()
    assert all(p.grad is not None and p.grad.any() for p in grown.branches.parameters() if p.dim() > 1)
    assert all(p.grad is not None for p in module.parameters())
    nn.functional.cross_entropy(other.train()(IMAGES), torch.arange(4))
    torch.testing.assert_close(grown.eval()(IMAGES), other.eval()(IMAGES))
    assert not any(parametrize.is_parametrized(part) for part in grown.branches.modules())


@pytest.mark.parametrize("name", ["Doubled", "LnStructured", "standardise"])
def test_first_weights_have_the_scale_of_those_that_are_used(name: str) -> None:
    """Of what the layer multiplies with, not of what that is made from."""
    module = changed(CHANGES[name])
    layer = module[3][0]
    module(IMAGES)
    used = copy.deepcopy(layer.weight.detach())
    grown = dhm.attach(module, image_size=32, width=1.0, seed=0).branches["B1"].net[3][0].weight
    assert grown.std().item() == pytest.approx(used.std().item(), rel=0.05)


def test_only_branches_that_hold_such_weights_say_so() -> None:
    module = network()
    weight_norm = parametrizations.weight_norm
    weight_norm(module[0][0])
    assert "plain weights" not in dhm.attach(module, image_size=32).describe()
    weight_norm(module[1][0])
    first, second = dhm.attach(module, image_size=32).describe().splitlines()[-2:]
    assert "plain weights" not in first
    assert second.endswith("plain weights, without the network's WeightNorm")


def test_lazy_layers_are_told_before_they_have_weights() -> None:
    net = nn.Sequential(
        nn.LazyConv2d(8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5)
    )
    with pytest.raises(dhm.InputError, match="Sequential has lazy layers without weights: run it once on images"):
        dhm.attach(net)
    net(IMAGES)
    assert dhm.attach(net, ["0"]).branches["B1"].width == 2
