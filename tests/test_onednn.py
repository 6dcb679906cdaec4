"""Gradients of strided 1x1 convolutions on few channels against float64, with the processor held down to AVX2."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import dhm
from dhm.onednn import endangered, keep_clear

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1"}
CHILD = """
import copy, sys, torch, dhm
from torch import nn

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Conv2d(8, 12, 1, 2, padding=1, padding_mode="reflect"), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))

def repvgg():
    import timm
    return timm.create_model("repvgg_a0", num_classes=10)

MAKE = {
    "resnet of 4 channels": lambda: dhm.create_model("imagenet_resnet", 10, depth=10, base=4),
    "own network": lambda: dhm.attach(tiny(), image_size=32),
    "repvgg": lambda: dhm.attach(repvgg(), image_size=64),
}
torch.manual_seed(0)
net = MAKE[sys.argv[1]]().train()
x, y = torch.randn(8, 3, 64, 64), torch.randint(0, 10, (8,))

def gradients(net, x):
    loss, _ = dhm.DHMLoss()(net(x), y)
    return torch.autograd.grad(loss, list(net.parameters()))

true = gradients(copy.deepcopy(net).double(), x.double())
for layout in (torch.channels_last, torch.contiguous_format):
    placed = copy.deepcopy(net).to(memory_format=layout)
    for _ in range(6):
        ours = gradients(placed, x.to(memory_format=layout))
        off = max(float((a.double() - b).norm() / b.norm()) for a, b in zip(ours, true) if b.norm() > 1e-2)
        assert off < 2e-2, off  # float32 through a deep network in training mode; a wrong gradient is off by its size
        rest = [torch.randn(size) for size in range(1, 51)]  # others use the heap
print("as in float64")
"""


@pytest.mark.parametrize("name", ["resnet of 4 channels", "own network", "repvgg"])
def test_gradients_on_avx2(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, name], capture_output=True, text=True, env={**os.environ, **AVX2}, timeout=300
    )
    assert done.returncode == 0, done.stderr[-600:]
    assert "isa:Intel AVX2" in done.stdout
    assert done.stdout.rstrip().endswith("as in float64")


def strided() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 1, 2), nn.Conv2d(8, 6, 1, (1, 3), bias=False), nn.Conv2d(6, 16, 3, 2),
        nn.Conv2d(16, 5, 1), nn.Conv2d(5, 4, 1, 2, padding=(1, 0), padding_mode="circular"),
    )  # fmt: skip


def test_kept_clear_it_answers_as_before() -> None:
    plain, clear = strided().double(), strided().double()
    keep_clear(clear)
    keep_clear(clear)
    assert str(clear) == str(plain)
    assert clear.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 4, 17, 19, dtype=torch.float64)
    torch.testing.assert_close(clear(x), plain(x), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(clear(x), plain(x))
    assert [conv.stride for conv in clear] == [conv.stride for conv in plain]
    again = pickle.loads(pickle.dumps(clear))
    assert torch.equal(again(x), clear(x))
    assert type(again[0]).__mro__[1:] == type(clear[0]).__mro__[1:]


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (nn.Conv2d(4, 8, 1, 2), True),
        (nn.Conv2d(15, 8, 1, (1, 2)), True),
        (nn.Conv2d(16, 8, 1, 2), False),
        (nn.Conv2d(1, 8, 1, 2), False),
        (nn.Conv2d(4, 8, 1), False),
        (nn.Conv2d(4, 8, 3, 2), False),
        (nn.Conv2d(4, 8, 1, 2, groups=2), False),
        (nn.Conv2d(4, 8, 1, 2, padding=1), False),
        (nn.Conv2d(4, 8, 1, 2, padding=1, padding_mode="reflect"), True),
        (nn.Linear(4, 8), False),
    ],
)
def test_which_convolutions(conv: nn.Module, expected: bool) -> None:
    assert endangered(conv) is expected


def test_the_papers_networks_have_none() -> None:
    for name in dhm.list_models():
        with torch.device("meta"):
            assert not any(endangered(part) for part in dhm.create_model(name).modules()), name
