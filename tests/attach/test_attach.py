"""DHM on foreign networks: torchvision, timm and hand-written ones, of many kinds of blocks."""

import copy
import json
import math
import threading
from collections.abc import Callable

import pytest
import torch
import torchvision
from scipy.stats import binomtest
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torchvision.models import convnext, efficientnet, mobilenetv3, regnet, vgg

import dhm
from dhm import paths
from dhm.attach.tracing import trace
from dhm.branches import Plan, designed_branches
from dhm.data import load
from dhm.zoo import blueprint

TIMM = (
    "repvgg_a0", "ghostnet_050", "test_resnet", "convnextv2_atto", "inception_next_atto", "hgnetv2_b0", "dla46_c",
    "starnet_s050", "ese_vovnet19b_slim", "edgenext_xx_small",
)  # fmt: skip
OTHER_STEPS = {
    "resnet18": 8, "mobilenet_v2": 48, "mobilenet_v3": 20, "efficientnet": 20, "regnet": 16, "timm-repvgg_a0": 8,
    "timm-ghostnet_050": 16, "timm-convnextv2_atto": 32, "timm-dla46_c": 24, "timm-test_resnet": 48,
    "timm-starnet_s050": 20, "explicit": 48, "sequential": 48,
}  # fmt: skip
"""Of training, where `STEPS` are too few, or more than it takes on the slowest."""
STEPS, BATCH, HELD_OUT, CLASSES = 12, 16, 128, 10


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


def small_vgg() -> nn.Module:
    net = vgg.VGG(vgg.make_layers([16, "M", 32, "M", 64, 64, "M", 128, 128, "M", 128, 128, "M"], batch_norm=True))
    net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(128, CLASSES)  # in place of 120 million weights
    return net


def small_mobilenet_v3() -> nn.Module:
    rows = [  # in, kernel, expanded, out, squeeze and excitation, activation, stride, dilation
        (8, 3, 8, 8, True, "RE", 2, 1), (8, 3, 40, 16, False, "RE", 2, 1), (16, 3, 48, 16, False, "RE", 1, 1),
        (16, 5, 48, 24, True, "HS", 2, 1), (24, 5, 64, 24, True, "HS", 1, 1), (24, 5, 144, 48, True, "HS", 2, 1),
        (48, 5, 144, 48, True, "HS", 1, 1),
    ]  # fmt: skip
    blocks = [mobilenetv3.InvertedResidualConfig(*row, width_mult=1) for row in rows]
    return mobilenetv3.MobileNetV3(blocks, 256, num_classes=CLASSES)


def small_efficientnet() -> nn.Module:
    rows = [  # expansion, kernel, stride, in, out, blocks
        (1, 3, 1, 16, 8, 1), (6, 3, 2, 8, 8, 1), (6, 5, 2, 8, 16, 2), (6, 3, 2, 16, 32, 2), (6, 5, 1, 32, 40, 2),
        (6, 5, 2, 40, 64, 2), (6, 3, 1, 64, 96, 1),
    ]  # fmt: skip
    return efficientnet.EfficientNet([efficientnet.MBConvConfig(*row) for row in rows], 0.2, num_classes=CLASSES)


def small_convnext() -> nn.Module:
    widths = (24, 48, 96, 192)
    blocks = map(convnext.CNBlockConfig, widths, (*widths[1:], None), (1, 1, 3, 1))
    return convnext.ConvNeXt([*blocks], num_classes=CLASSES)


def small_regnet() -> nn.Module:
    blocks = regnet.BlockParams.from_init_params(depth=8, w_0=24, w_a=28, w_m=2.5, group_width=8, se_ratio=0.25)
    return regnet.RegNet(blocks, num_classes=CLASSES)


TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=CLASSES),
    "densenet": lambda: torchvision.models.DenseNet(8, (4, 6, 8, 6), 16, num_classes=CLASSES),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=CLASSES, width_mult=0.35),
    "mobilenet_v3": small_mobilenet_v3, "efficientnet": small_efficientnet, "convnext": small_convnext,
    "regnet": small_regnet, "vgg": small_vgg,
}  # fmt: skip
"""Narrow members of its families: what code they are of decides, and it is the same in all."""


def from_timm(name: str) -> nn.Module:
    return with_quiet_classifier(pytest.importorskip("timm").create_model(name, num_classes=CLASSES))


def with_quiet_classifier(net: nn.Module) -> nn.Module:
    """Small first logits; made for many classes, some of these start with large ones, and are slow to leave them."""
    nn.init.normal_([m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1].weight, std=0.01)
    return net


NETWORKS = [
    *(pytest.param(lambda build=build: with_quiet_classifier(build()), id=id) for id, build in TORCHVISION.items()),
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
def test_any_network_trains_with_branches_and_answers_without(
    build: Callable[[], nn.Module], data, request: pytest.FixtureRequest
) -> None:  # fmt: skip
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
    for images, target in batches[: OTHER_STEPS.get(request.node.callspec.id, STEPS)]:
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
def test_a_copied_branch_is_the_network(build: Callable[[], nn.Module], data) -> None:
    """A branch as wide and long as the network and with its weights gives the network's bits.

    So all that runs after the root, modules or plain code, runs in the branch as it does in the network.
    """
    module = build().eval()
    net = dhm.attach(module, [trace(module).levels[-3]], width=1.0).eval()
    own, tail = module.state_dict(), net.branches["B1"].net
    tail.load_state_dict({name: own[name] for name in tail.state_dict()})
    with torch.no_grad():
        logits = net.all_logits(data[1][0][:4])
    assert torch.equal(logits["B1"], logits["B0"])


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet18", {}), ("resnet50", {}), ("wrn", {"depth": 16, "width": 2}), ("mobilenet_v1", {})],
)
def test_grown_branches_are_those_the_paper_designed(name: str, options: dict) -> None:
    """On the paper's own networks, the same tensors as the branches built from their blueprint (Tables 8-10)."""
    with torch.device("meta"):
        plan = blueprint(name, **options)
        designed, grown = Plan(plan, designed_branches(plan)).build(100), dhm.attach(plan.network())
    assert grown.heads == designed.heads
    for head in ("B1", "B2"):
        ours, theirs = (sorted(tuple(p.shape) for p in net.branches[head].parameters()) for net in (grown, designed))
        assert ours == theirs


def test_dense_blocks_are_halved_and_widened() -> None:
    """torchvision's dense layers write their number of input channels down: it follows what is left."""
    with torch.device("meta"):
        net = dhm.attach(torchvision.models.densenet121())
    wide, short = (net.branches[name].net.features.denseblock4 for name in ("B1", "B2"))
    assert [len(block) for block in (wide, short)] == [16, 8]
    assert wide.denselayer16.conv2.out_channels == 64
    assert short.denselayer8.norm1.num_features == 512 + 7 * 32


def test_gates_weigh_what_they_are_given() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        stage = dhm.attach(timm.create_model("lcnet_035")).branches["B1"].net.blocks[5]
    first, second = (block.se.conv_expand.out_channels for block in stage)
    assert first == stage[0].conv_dw.out_channels == 88  # a depthwise layer on the root: as wide as the trunk
    assert second == stage[1].conv_dw.out_channels == 2 * 176


def test_what_cannot_be_widened_keeps_its_width_and_says_so() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        net = dhm.attach(timm.create_model("inception_next_atto"))
    assert "not widened by 2: the code at stages.3.blocks.0.token_mixer fixes the number of channels" in net.describe()
    assert net.branches["B1"].width == 1


def test_seed_decides_the_branches_and_nothing_else() -> None:
    torch.manual_seed(3)
    module = Explicit()
    state = torch.get_rng_state()
    first, second, other = (dhm.attach(module, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert same_bits(first.branches.state_dict(), second.branches.state_dict())
    assert not same_bits(first.branches.state_dict(), other.branches.state_dict())
    drawn = [dhm.attach(module).branches.state_dict() for _ in range(2) if torch.manual_seed(4)]
    assert same_bits(*drawn)


def test_first_weights_are_drawn_as_the_network_draws_its_own() -> None:
    torch.manual_seed(0)
    module = torchvision.models.resnet18()
    tail = dhm.attach(module, width=2.0).branches["B1"].net
    own, grown = module.layer4[1], tail.layer4[1]
    assert grown.conv1.weight.std().item() == pytest.approx(own.conv1.weight.std().item() / 2**0.5, rel=0.01)
    assert torch.equal(grown.bn1.weight, torch.ones(1024))
    assert torch.equal(grown.bn1.running_mean, torch.zeros(1024))


def test_roots_by_name_own_branches_and_order() -> None:
    module = sequential()
    own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))
    net = dhm.attach(module, branches={"side": ("4", own), "B1": "7"})
    assert net.heads == ("B0", "B1", "side")
    x = torch.randn(3, 3, 32, 32)
    logits = net.eval().all_logits(x)
    torch.testing.assert_close(logits["side"], own(module[:5](x)))
    assert [list(dhm.attach(module, at).roots.values()) for at in (["1", "7"], ["7"])] == [["7", "1"], ["7"]]
    groups = net.parameter_groups()
    assert list(groups) == ["B0", "B1", "side"]
    assert sum(map(len, groups.values())) == len(list(net.parameters()))
    assert {id(p) for p in groups["side"]} == {id(p) for p in own.parameters()}


def test_a_branch_after_the_last_stage_is_a_classifier() -> None:
    with torch.device("meta"):
        net = dhm.attach(torchvision.models.resnet18(num_classes=7), ["avgpool", "layer4"])
    assert net.heads == ("B0", "B1", "B2")
    shapes = [[tuple(p.shape) for p in net.branches[name].parameters()] for name in ("B1", "B2")]
    assert shapes == [[(7, 512), (7,)]] * 2


def test_soft_targets_autocast_copies_and_other_sizes() -> None:
    net = copy.deepcopy(dhm.attach(Explicit(), seed=0)).train()
    images, target = torch.randn(4, 3, 40, 40), torch.full((4, CLASSES), 1 / CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = dhm.DHMLoss()(net(images), target)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_hooks_are_gone_after_a_pass_that_failed() -> None:
    net = dhm.attach(Explicit(), seed=0).train()
    with pytest.raises(RuntimeError):
        net(torch.randn(2, 5, 32, 32))
    assert hooks_of(net.main_only()) == 0


def test_the_loop_shown_in_the_notebook_trains_and_gives_the_own_module_back(data) -> None:
    """The cells of bring_your_own_network: the reader's loop, and the same loop under DHM."""
    cells = json.loads((paths.root() / "notebooks" / "bring_your_own_network.ipynb").read_text())["cells"]
    plain, ours = ("".join(cell["source"]) for cell in cells if "own-loop" in cell["metadata"].get("tags", []))
    lines = [set(code.splitlines()) for code in (plain, ours)]
    assert len(lines[1] - lines[0]) <= 5
    namespace = {"torch": torch, "dhm": dhm}
    exec(plain + "\n" + ours, namespace)
    images, labels = data[1]
    for name in ("train_plain", "train_dhm"):
        torch.manual_seed(0)
        module = Explicit()
        trained = namespace[name](module, lambda epoch: iter(data[0]), 2)
        assert trained is module
        assert (trained.eval()(images).argmax(1) == labels).float().mean() > 0.8


class Around(Explicit):
    """A part of the network goes around conv2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x) + x.repeat(1, 2, 1, 1), 2)
        return self.fc(F.adaptive_avg_pool2d(self.conv3(x), 2).flatten(1))


class Locked(Explicit):
    """Holds what Python does not copy."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: dhm.attach(Explicit(), ["conv9"]), "Explicit has no module 'conv9'; the nearest name is 'conv"),
        (lambda: dhm.attach(nn.Linear(4, 2)), "Linear has no spatial feature maps .* pass hand-written branches="),
        (lambda: dhm.attach(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), r"must answer with logits \(N, classes\)"),
        (lambda: dhm.attach(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())),
         "cannot be branched automatically: .* a single stage, up to 0, .* pass at=.* or hand-written branches="),
        (lambda: dhm.attach(sequential(), image_size=30), "stopped at 11 .* pass the image_size it takes"),
        (lambda: dhm.attach(sequential(), ["10"]), "from 10: it gives no map .* or hand-written branches="),
        (lambda: dhm.attach(sequential(), "4"), "at must be a list of different module names, not '4'"),
        (lambda: dhm.attach(Around(), ["conv2"]), "go around it; the next module .* is 'conv3'"),
        (lambda: dhm.attach(Explicit(), ["conv1"], branches={"B1": "conv2"}), "either at=.* or branches="),
        (lambda: dhm.attach(Explicit(), branches={"B0": "conv2"}), "a branch cannot be called 'B0'"),
        (lambda: dhm.attach(Explicit(), branches={"B1": 3}), r"a root's name or \(root, module\), not 3"),
        (lambda: dhm.attach(Explicit(), width=0), "width must be positive, not 0"),
        (lambda: dhm.attach(Explicit(), width=math.nan), "width must be positive, not nan"),
        (lambda: dhm.attach(Explicit(), width="2"), "width must be positive, not '2'"),
        (lambda: dhm.attach(Explicit(), seed="0"), "seed must be a whole number, not '0'"),
        (lambda: dhm.attach(Explicit), "module must be a network, an nn.Module, not <class"),
        (lambda: dhm.attach(Explicit(), at=3), "at must be a list of different module names, not 3"),
        (lambda: dhm.attach(Explicit(), branches=["conv1"]), r"branches must be roots by .*, not \['conv1'\]"),
        (lambda: dhm.attach(Explicit(), image_size=(32, 32)), r"the pixels of a side, a whole number, not \(32, 32\)"),
        (lambda: dhm.attach(Explicit(), image_size=0), "the pixels of a side, a whole number, not 0"),
        (lambda: dhm.attach(Explicit(), example=[1]), r"a batch of images \(N, C, H, W\), a tensor, not a list"),
        (lambda: dhm.attach(Explicit(), example=torch.zeros(3, 32, 32)), "example must be a batch of images"),
        (lambda: dhm.attach(Explicit(), branches={"B1": ("conv2", nn.Identity())})(torch.randn(2, 3, 32, 32)),
         "branch B1 answers with the shape .* the network itself with"),
        (lambda: dhm.attach(torchvision.models.googlenet(num_classes=2, init_weights=False), seed=0)(
            torch.randn(2, 3, 32, 32)), "answers with a GoogLeNetOutputs in training mode"),
        (lambda: dhm.attach(Locked()), r"Locked cannot be copied.* \(TypeError: cannot pickle .*; pass hand-written"),
        (lambda: dhm.attach(nn.Sequential(nn.Conv2d(3, 3, 3), torch.jit.script(nn.Conv2d(3, 4, 3)))),
         "Sequential cannot be copied"),
        (lambda: dhm.attach(torch.jit.script(nn.Conv2d(3, 4, 3))),
         "is TorchScript, which runs as a whole; attach to the network it was made of"),
    ],
)  # fmt: skip
def test_what_cannot_be_attached_is_told_in_a_sentence(call: Callable, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        call()


def test_figures_name_stages_and_sizes() -> None:
    pytest.importorskip("matplotlib")
    from dhm.plots.heads import held_out
    from dhm.plots.network import draw_attached

    own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 7))
    net = dhm.attach(torchvision.models.resnet18(num_classes=7), branches={"B1": ("layer3", own), "B2": "layer2"})
    texts = [text.get_text() for text in draw_attached(net, 64, "a title").axes[0].texts]
    assert texts.count("layer4\n512 × 2×2") == 1
    assert texts.count("layer4\n1 of 2 blocks\n512 × 2×2") == 1
    assert texts.count("layer3\n256 × 4×4") == 2
    assert {"a title", "B0", "B1", "B2"} <= set(texts)
    axes = held_out({"a run": {"B0": [10.0, 30.0], "B1": [20.0, 25.0]}}).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[10.0, 30.0], [20.0, 25.0]]


def test_a_branch_from_within_the_first_stage_is_drawn_below_its_stages() -> None:
    """Its own part of that stage has a box, in the column of the trunk's."""
    pytest.importorskip("matplotlib")
    from dhm.plots.network import draw_attached

    with torch.device("meta"):
        net = dhm.attach(torchvision.models.resnet18(), ["conv1"])
    places: dict[str, set[float]] = {}
    for text in draw_attached(net, 64).axes[0].texts:
        places.setdefault(text.get_text().partition("\n")[0], set()).add(text.get_position()[0])
    assert [len(places[name]) for name in ("relu", "layer1", "layer2", "layer3", "layer4")] == [1] * 5


class Idioms(nn.Module):
    """Ways of writing a network that a branch, which is a part of it, must cope with."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        self.all = nn.ModuleList([self.first, self.second, self.third])  # a second name for each
        self.fc = nn.Linear(16, CLASSES)

    def train(self, mode: bool = True) -> "Idioms":
        super().train(mode)
        self.first[1].eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, height = x.size(0), x.size(2)
        self.feature = self.third(self.second(self.first(x)))
        pooled = F.adaptive_max_pool2d(self.feature, (height // 16, height // 16))
        return self.fc(pooled.mean(dim=(2, 3)).view(count, -1))


def test_networks_written_in_many_ways() -> None:
    """Second names, a `train` of its own, kept features, the batch's size and the image's read from the input."""
    module = Idioms()
    seen: list[torch.Tensor] = []
    module.fc.register_forward_hook(lambda module, given, output: seen.append(output))
    module(torch.rand(2, 3, 32, 32))
    seen.clear()
    net = dhm.attach(module, ["first"], width=1)  # at another size than that of the images below
    assert not seen
    logits = net.train()(images := torch.rand(4, 3, 48, 48))
    assert len(seen) == 1
    assert torch.equal(seen[0], logits["B0"])
    branch = net.branches["B1"].net
    branch.load_state_dict(module.state_dict(), strict=False)
    answers = net.eval().all_logits(images)
    torch.testing.assert_close(answers["B1"], answers["B0"])


def test_branches_take_the_mode_of_their_network() -> None:
    for mode in (True, False):
        net = dhm.attach(sequential().train(mode))
        assert {part.training for part in net.modules()} == {mode}


class Blurred(nn.Module):
    """A buffer that follows the channels and is no running statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "filter", torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).div(16).expand(8, 1, 3, 3).clone()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.filter, padding=1, groups=x.shape[1])


def test_fixed_filters_stay_what_they_are_in_a_wider_branch() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1), Blurred(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip
    filters = dhm.attach(module, ["0"]).branches["B1"].net[2].filter
    assert filters.shape == (16, 1, 3, 3)
    assert torch.equal(filters, module[2].filter[:1].expand_as(filters))
