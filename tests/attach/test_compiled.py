"""Compiled networks: code that was compiled for the plain network is used for every other of its class."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from three_convolutions import IMAGES, TARGET, Net
from torch.nn import functional as F

import dhm


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


def tiny_resnet() -> torch.nn.Module:
    return pytest.importorskip("timm").create_model("test_resnet", num_classes=10)


@pytest.mark.parametrize("build", [Net, tiny_resnet])
def test_a_training_pass_compiles_whole(build: Callable[[], torch.nn.Module]) -> None:
    """Logits, gradients and running statistics of the uncompiled network, in one graph, over several steps."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = dhm.attach(build(), image_size=64).train()
    images, graphs = torch.randn(4, 3, 64, 64), []
    other = copy.deepcopy(net)
    compiled = torch.compile(other, fullgraph=True, backend=lambda g, _: graphs.append(g) or g.forward)
    for _ in range(2):
        answers = net(images), compiled(images)
        for one, logits in zip((net, other), answers, strict=True):
            one.zero_grad()
            dhm.DHMLoss()(logits, TARGET)[0].backward()
        for name, logits in answers[0].items():
            torch.testing.assert_close(answers[1][name], logits)
        for ours, theirs in zip(other.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
        for ours, theirs in zip(other.buffers(), net.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert len(graphs) == 1
    torch.testing.assert_close(compiled.eval()(images), net.eval()(images))
    alone = torch.compile(other.main_only(), fullgraph=True, backend="eager")
    torch.testing.assert_close(alone(images), net(images))
