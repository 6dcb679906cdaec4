"""Weights from the plain network into the attached one and back, by files that other programs write."""

from pathlib import Path

import pytest
import torch
import torchvision
from three_convolutions import IMAGES, Net
from torch import nn
from torch.optim.swa_utils import AveragedModel

import dhm


class Held(nn.Module):
    """A user's own network whose names look like a wrapper's."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def attached(seed: int, kind: type[nn.Module] = Net) -> dhm.AttachedNet:
    torch.manual_seed(seed)
    return dhm.attach(kind(), image_size=32, seed=seed)


SAVED = {
    "timm": lambda net: {"state_dict": net.state_dict(), "epoch": 3},
    "ddp": lambda net: {"model": {f"module.{key}": value for key, value in net.state_dict().items()}},
    "compiled": lambda net: torch.compile(net).state_dict(),
    "averaged": lambda net: AveragedModel(net).state_dict(),
    "lightning": lambda net: {
        "pytorch-lightning_version": "2.6",
        "state_dict": {f"net.{key}": value for key, value in net.state_dict().items()},
    },
}


@pytest.mark.parametrize("kind", [Net, Held])
@pytest.mark.parametrize("how", SAVED)
def test_a_program_s_file_of_an_attached_network_gives_the_plain_one(
    how: str, kind: type[nn.Module], tmp_path: Path
) -> None:
    net, plain = attached(0, kind), kind()
    torch.save(SAVED[how](net), tmp_path / "best.pth")
    plain.load_state_dict(dhm.plain_state(tmp_path / "best.pth"))
    assert torch.equal(plain.eval()(IMAGES), net.eval()(IMAGES))
    again = attached(1, kind)
    again.load_plain(tmp_path / "best.pth")
    assert torch.equal(again.eval()(IMAGES), net(IMAGES))


@pytest.mark.parametrize("kind", [Net, Held])
@pytest.mark.parametrize("how", SAVED)
def test_a_program_s_file_of_the_plain_network_goes_into_the_attached_one(how: str, kind: type[nn.Module]) -> None:
    net, plain = attached(0, kind), kind()
    branches = {key: value.clone() for key, value in net.branches.state_dict().items()}
    net.load_plain(SAVED[how](plain))
    assert torch.equal(net.eval()(IMAGES), plain.eval()(IMAGES))
    assert all(torch.equal(value, branches[key]) for key, value in net.branches.state_dict().items())


def test_counters_that_older_files_lack_are_no_hindrance() -> None:
    net = dhm.attach(torchvision.models.resnet18(num_classes=3), image_size=64)
    state = torchvision.models.resnet18(num_classes=3).state_dict()
    net.load_plain({key: value for key, value in state.items() if not key.endswith("num_batches_tracked")})
    assert torch.equal(net.backbone.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("b.weight"), "the state dict does not fit Net: it has no tensor b.weight"),
        (lambda state: state.update({"d": torch.ones(1)}), "it has a tensor d that the network has not"),
        (
            lambda state: state.update({"fc.weight": torch.ones(3, 32)}),
            r"fc.weight has shape \(3, 32\), not \(10, 32\)",
        ),
    ],
)
def test_another_network_s_tensors_are_told_and_change_nothing(change, sentence: str) -> None:
    net, state = attached(0), dict(Net().state_dict())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    change(state)
    with pytest.raises(dhm.InputError, match=sentence):
        net.load_plain(state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
