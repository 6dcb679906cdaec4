"""MobileNet against the mended Table 10, layer by layer."""

import pytest
import torch
from torch import nn

import dhm

# Table 10 from top to bottom, as the convolutions it prints: kernel, output channels, depthwise, stride. The mended
# cells are marked.
SHARED = [(3, 32, False, 2), (3, 32, True, 1), (1, 64, False, 1), (3, 64, True, 2), (1, 128, False, 1),
          (3, 128, True, 1), (1, 128, False, 1), (3, 128, True, 2), (1, 256, False, 1), (3, 256, True, 1),
          (1, 256, False, 1)]  # fmt: skip
FOURTH = [(3, 256, True, 2), (1, 512, False, 1)]  # printed 256
MIDDLE = [(3, 512, True, 1), (1, 512, False, 1)]
FIFTH = [(3, 512, True, 2), (1, 1024, False, 1), (3, 1024, True, 1), (1, 1024, False, 1)]  # the dw printed s2
BROAD = [(3, 512, True, 2), (1, 2048, False, 1), (3, 2048, True, 1), (1, 2048, False, 1)]  # the dw printed s2
TABLE = {
    "B0": [*SHARED, *FOURTH, *5 * MIDDLE, *FIFTH],
    "B1": BROAD,
    "B2": [*FOURTH, *3 * MIDDLE, *FIFTH],
}
FEATURES = {"B0": 1024, "B1": 2048, "B2": 1024}


@pytest.fixture(scope="module")
def net() -> dhm.BranchedNet:
    return dhm.create_model("mobilenet_v1", num_classes=1000)


def convolutions(module: nn.Module) -> list[tuple[int, int, bool, int]]:
    return [
        (m.kernel_size[0], m.out_channels, m.groups == m.in_channels and m.groups > 1, m.stride[0])
        for m in module.modules()
        if isinstance(m, nn.Conv2d)
    ]


def test_every_cell_of_table_10(net: dhm.BranchedNet) -> None:
    owners = {"B0": net.backbone, **net.branches}
    assert list(owners) == ["B0", "B1", "B2"]
    for name, owner in owners.items():
        assert convolutions(owner) == TABLE[name], name
        assert (owner.classifier.in_features, owner.classifier.out_features) == (FEATURES[name], 1000)


def test_stages_and_roots(net: dhm.BranchedNet) -> None:
    assert net.backbone.channels == (32, 64, 128, 256, 512, 1024)
    assert [len(stage[0]) for stage in net.backbone.stages] == [1, 2, 2, 6, 2]
    assert net.roots == {"B1": 4, "B2": 3}


def test_parameter_counts_by_arithmetic(net: dhm.BranchedNet) -> None:
    """Counted from the table's lines: a depthwise layer has k^2 c weights, a full one k^2 c_in c, batch norm 2 c."""
    entering = {"B0": 3, "B1": 512, "B2": 256}
    for name, parameters in net.parameter_groups().items():
        count, channels = 0, entering[name]
        for kernel, out, depthwise, _ in TABLE[name]:
            count += kernel**2 * out * (1 if depthwise else channels) + 2 * out
            channels = out
        count += channels * 1000 + 1000
        assert sum(p.numel() for p in parameters) == count, name


def test_main_branch_has_as_many_parameters_as_timms(net: dhm.BranchedNet) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mobilenetv1_100", num_classes=1000)
    assert sum(p.numel() for p in net.backbone.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_main_branch_computes_what_timms_does(net: dhm.BranchedNet) -> None:
    """The same weights in both, layer by layer in running order, give the same descriptor (theirs clips ReLU at 6)."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mobilenetv1_100", num_classes=1000, act_layer=nn.ReLU).eval()
    ours = dhm.create_model("mobilenet_v1", num_classes=1000, branches="none").backbone.eval()
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    for own, other in pairs:
        assert own.shape == other.shape
        other.copy_(own)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_a_pedestrian_ends_at_8_by_4(net: dhm.BranchedNet) -> None:
    with torch.no_grad():
        inner = net.backbone.representations(torch.zeros(1, 3, 256, 128))
        logits = net.all_logits(torch.zeros(2, 3, 256, 128))
    assert inner[-1].shape == (1, 1024, 8, 4)
    assert {name: tuple(z.shape) for name, z in logits.items()} == dict.fromkeys(("B0", "B1", "B2"), (2, 1000))


def test_descriptor_is_independent_of_all_branches(net: dhm.BranchedNet) -> None:
    x = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    net.eval()
    with torch.no_grad():
        before = net.features(x)
        for parameter in net.branches.parameters():
            parameter.add_(torch.randn_like(parameter))
        assert torch.equal(net.features(x), before)
    assert before.shape == (2, 1024)


def test_width_scales_every_layer() -> None:
    small = dhm.create_model("mobilenet", num_classes=10, width=0.25)
    assert small.backbone.channels == (8, 16, 32, 64, 128, 256)
    assert small.branches["B1"].channels[-1] == 512
    with pytest.raises(dhm.InputError, match=r"width must be at least 0\.25, not 0\.1"):
        dhm.create_model("mobilenet", width=0.1)
