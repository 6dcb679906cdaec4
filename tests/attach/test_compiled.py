"""Compiled networks: code that was compiled for the plain network is used for every other of its class."""

import itertools

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
