"""How much branches move the trunk: what they send back is weighed, their values and their own learning are not."""

import copy
from collections.abc import Callable

import pytest
import torch
from three_convolutions import IMAGES, TARGET, Net
from torch import nn
from torch.nn import functional as F

import dhm


def attached() -> nn.Module:
    return dhm.attach(Net(), image_size=32, seed=0)


def of_the_paper() -> nn.Module:
    return dhm.create_model("cifar_resnet", num_classes=10, depth=8)


BUILDERS = pytest.mark.parametrize("build", [attached, of_the_paper])


def gradients(net: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    parameters = list(net.parameters())
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True))


@BUILDERS
@pytest.mark.parametrize("influence", [0.0, 0.3, 0.8, torch.tensor(0.3, dtype=torch.float64)])
def test_the_trunk_sees_a_share_of_what_branches_send_back(build: Callable[[], nn.Module], influence) -> None:
    """Gradients of the trunk are B0's plus the share of the others'; a branch's own and all logits stay."""
    torch.manual_seed(0)
    net = build().train()
    logits = net(IMAGES)
    main = gradients(net.backbone, F.cross_entropy(logits["B0"], TARGET))
    others = sum(F.cross_entropy(logits[name], TARGET) for name in net.heads[1:])
    theirs, own = gradients(net.backbone, others), gradients(net.branches, others)
    net.influence = influence
    again = net(IMAGES)
    assert all(torch.equal(again[name], logits[name]) for name in net.heads)
    total = sum(F.cross_entropy(z, TARGET) for z in again.values())
    for got, of_main, of_others in zip(gradients(net.backbone, total), main, theirs, strict=True):
        torch.testing.assert_close(got, of_main + float(influence) * of_others, rtol=1e-4, atol=1e-6)
    assert any(gradient.abs().max() > 0 for gradient in theirs)
    for got, before in zip(gradients(net.branches, total), own, strict=True):
        torch.testing.assert_close(got, before)


@BUILDERS
def test_at_nothing_b0_learns_as_the_plain_network_does(build: Callable[[], nn.Module]) -> None:
    """Five steps with both knobs at 0, and the same weights as without branches; then one with both at 1."""
    torch.manual_seed(0)
    net = build().train()
    plain, loss = copy.deepcopy(net.backbone), dhm.DHMLoss()
    net.influence = loss.mimic_scale = 0.0
    optimizers = [torch.optim.SGD(part.parameters(), 0.05, momentum=0.9) for part in (net, plain)]

    def step() -> None:
        for optimizer, total in zip(optimizers, (loss(net(IMAGES), TARGET)[0], F.cross_entropy(plain(IMAGES), TARGET)),
                                    strict=True):  # fmt: skip
            optimizer.zero_grad()
            total.backward()
            optimizer.step()

    for _ in range(5):
        step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(net.backbone.state_dict()[name], value)
    net.influence = loss.mimic_scale = 1.0
    step()
    first = next(iter(plain.state_dict()))
    assert not torch.allclose(net.backbone.state_dict()[first], plain.state_dict()[first], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrong", ["1", float("nan"), None])
def test_an_influence_that_is_no_number_is_told(wrong) -> None:
    net = attached().train()
    net.influence = wrong
    with pytest.raises(dhm.InputError, match="influence must be a finite number"):
        net(IMAGES)


def test_a_compiled_network_follows_its_schedule() -> None:
    """A tensor that grows is no reason to compile again."""
    net = attached().train()
    net.influence = torch.zeros(())
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for share in (0.0, 0.25, 0.5):
        net.influence.fill_(share)
        with torch.compiler.set_stance("fail_on_recompile" if share else "default"):
            found = gradients(net.backbone, compiled(IMAGES)["B1"].sum())
        net.influence.fill_(1.0)
        full = gradients(net.backbone, net(IMAGES)["B1"].sum())
        for got, whole in zip(found, full, strict=True):
            torch.testing.assert_close(got, share * whole)
