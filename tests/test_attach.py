"""DHM on foreign networks: torchvision, timm and hand-written ones, of many kinds of blocks."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
import torchvision
from scipy.stats import binomtest
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

import dhm
from dhm.attach import AttachedNet
from dhm.attach.growing import last_blocks
from dhm.attach.tracing import trace
from dhm.branches import branch_out, designed_branches
from dhm.data import load
from dhm.zoo import blueprint

TORCHVISION = (
    "resnet18", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny",
    "regnet_y_400mf", "vgg11_bn",
)  # fmt: skip
TIMM = (
    "repvgg_a0", "lcnet_035", "mobilenetv4_conv_small_035", "ghostnet_050", "test_resnet", "convnextv2_atto",
    "inception_next_atto", "hgnetv2_b0", "dla46_c", "starnet_s050", "poolformer_s12",
)  # fmt: skip
BATCH, HELD_OUT, CLASSES = 16, 128, 10


def steps_for(net: nn.Module) -> int:
    """Small networks are quick and learn slowly."""
    weights = sum(p.numel() for p in net.parameters())
    return 48 if weights < 1e6 else 16 if weights < 5e6 else 8


class Explicit(nn.Module):
    """A small network whose forward is code, not a list of modules."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.norm(self.conv2(x))), 2)
        x = F.adaptive_avg_pool2d(F.relu(self.conv3(x)), 2)
        return self.fc(torch.flatten(x, 1))


def sequential(classes: int = CLASSES) -> nn.Module:
    """A small network that takes images of 32x32 alone."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 8 * 8, classes),
    )  # fmt: skip


def from_torchvision(name: str) -> nn.Module:
    net = torchvision.models.get_model(name, num_classes=CLASSES)
    if name.startswith("vgg"):  # its three linear layers for 224 pixels hold 120 million weights
        net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, CLASSES)
    return with_quiet_classifier(net)


def from_timm(name: str) -> nn.Module:
    return with_quiet_classifier(pytest.importorskip("timm").create_model(name, num_classes=CLASSES))


def with_quiet_classifier(net: nn.Module) -> nn.Module:
    """Small first logits: some of these start with large ones where there are few classes, and learn nothing at first."""
    nn.init.normal_([m for m in net.modules() if isinstance(m, nn.Linear)][-1].weight, std=0.01)
    return net


NETWORKS = [
    *(pytest.param(lambda name=name: from_torchvision(name), id=name) for name in TORCHVISION),
    *(pytest.param(lambda name=name: from_timm(name), id=f"timm-{name}") for name in TIMM),
    pytest.param(Explicit, id="explicit"),
    pytest.param(sequential, id="sequential"),
]


@pytest.fixture(scope="module")
def data() -> tuple[list[tuple[torch.Tensor, torch.Tensor]], tuple[torch.Tensor, torch.Tensor]]:
    """Training batches and held-out images of two of the ten classes, 32x32."""
    both = load(dhm.Config(arch="resnet32", image_size=32, classes=2, train_per_class=400))
    train = list(both.train.train_batches(BATCH, seed=0, epoch=0, augment="none"))
    order = torch.randperm(len(both.test), generator=torch.Generator().manual_seed(0))[:HELD_OUT]
    return train, (both.test.normalise(both.test.pixels[order]), both.test.labels[order])


def hooks_of(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules())


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("build", NETWORKS)
def test_any_network_trains_with_branches_and_answers_without(build: Callable[[], nn.Module], data) -> None:
    torch.manual_seed(0)
    module = build()
    batches, (held_out, labels) = data
    before = copy.deepcopy(module.state_dict())
    net = dhm.attach(module, seed=1)
    assert net.heads == ("B0", "B1", "B2")
    assert net.main_only() is module
    assert same_bits(module.state_dict(), before)
    assert hooks_of(module) == 0

    # every classifier's own gradient reaches the first layer of the trunk
    first = next(m for m in module.modules() if isinstance(m, nn.Conv2d)).weight
    for logits in net.train()(batches[0][0][:4]).values():
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), first, retain_graph=True)
        assert gradient.abs().max() > 0

    loss, optimizer = dhm.DHMLoss(), torch.optim.Adam(net.parameters(), lr=2e-3, fused=True)
    for images, target in batches[: steps_for(module)]:
        total, terms = loss(net(images), target)
        assert len(terms) == 9
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    update_bn((images for images, _ in batches[-4:]), module)
    with torch.no_grad():
        answer = net.eval()(held_out)
        correct = int((answer.argmax(1) == labels).sum())
        commonest = labels.bincount().max().item() / len(labels)
        assert binomtest(correct, len(labels), commonest, "greater").pvalue < 0.01
        plain = build().eval()
        plain.load_state_dict(net.main_only().state_dict(), strict=True)
        assert torch.equal(plain(held_out[:8]), net(held_out[:8]))
    assert hooks_of(module) == 0


@pytest.mark.parametrize("build", NETWORKS)
def test_a_branch_as_wide_and_long_as_the_network_with_its_weights_is_the_network(build, data) -> None:
    """The cut at the root: what runs after it, in whatever code, runs in the branch as it does in the network."""
    module = build().eval()
    net = dhm.attach(module, [trace(module).levels[-3]], width=1.0).eval()
    own, tail = module.state_dict(), net.branches["B1"].net
    tail.load_state_dict({name: own[name] for name in tail.state_dict()})
    with torch.no_grad():
        logits = net.all_logits(data[1][0][:4])
    assert torch.equal(logits["B1"], logits["B0"])
