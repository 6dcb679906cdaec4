"""Networks with branches: order, what runs when, what shares what, and what cannot be built."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

import dhm
from dhm.branches import BranchSpec, answering
from dhm.paper.presets import QUICK_MEMBERS
from dhm.zoo import FAMILIES, blueprint, branches_of, network_of

SMALL = [(family, QUICK_MEMBERS.get(family, {})) for family in FAMILIES]
"""A member of every family."""
X = torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize(("family", "options"), SMALL)
def test_training_answers_with_all_heads_and_eval_with_one(family: str, options: dict) -> None:
    net = dhm.create_model(family, num_classes=10, **options)
    logits = net.train()(X)
    assert list(logits) == ["B0", "B1", "B2"] == list(net.heads)
    assert all(z.shape == (2, 10) for z in logits.values())
    answer = net.eval()(X)
    assert torch.equal(answer, net.all_logits(X)["B0"])
    assert torch.equal(answer, net.main_only()(X))
    assert torch.equal(answer, net.backbone.classifier(net.features(X)))


@pytest.mark.parametrize(("family", "options"), SMALL)
def test_no_branch_runs_in_eval_mode(family: str, options: dict) -> None:
    net = dhm.create_model(family, **options)
    calls: Counter[str] = Counter()
    for name, module in net.named_modules():
        if name.startswith("branches."):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    net.eval()(X)
    net.features(X)
    assert not calls
    net.train()(X)
    assert {"branches.B1.fc", "branches.B2.fc"} <= calls.keys()


def test_stem_stages_and_head_are_views_of_the_same_modules() -> None:
    net = dhm.create_model("densenet", depth=10, growth=4).main_only().eval()
    x = net.stem(X)
    for stage in net.stages:
        x = stage(x)
    assert torch.equal(net.head(x), net(X))
    names = [name for name, _ in net.named_parameters()]
    assert len(names) == len(set(names)) == len({id(p) for p in net.parameters()})


def test_groups_share_nothing_and_miss_nothing() -> None:
    net = dhm.create_model("wrn", depth=10, width=1)
    owned = [id(p) for group in net.parameter_groups().values() for p in group]
    assert len(owned) == len(set(owned)) == len(list(net.parameters()))


def test_seed_gives_the_backbone_the_same_weights_with_and_without_branches() -> None:
    nets = []
    for branches in ("paper", "none"):
        torch.manual_seed(5)
        nets.append(dhm.create_model("cifar_resnet", depth=8, branches=branches).main_only())
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_convolutions_start_as_in_the_released_program() -> None:
    torch.manual_seed(0)
    weight = dhm.create_model("wrn", depth=10, width=8).main_only().get_submodule("layer3.0.conv2").weight
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    assert weight.mean().item() == pytest.approx(0, abs=1e-4)


def test_any_number_of_branches_in_order_of_depth() -> None:
    specs = [
        BranchSpec("B3", 0, (1, 1, 1)), BranchSpec("B1", 2, (1,), 2.0), BranchSpec("B2", 1, (1, 1)), BranchSpec("S", 3),
    ]  # fmt: skip
    net = dhm.create_model("cifar_resnet", depth=8, branches=specs)
    assert net.heads == ("B0", "S", "B1", "B2", "B3")
    assert list(net.train()(X)) == list(net.heads)


def test_bare_classifier_sits_directly_on_its_layer() -> None:
    net = dhm.create_model("cifar_resnet", num_classes=4, depth=8, branches=[BranchSpec("B1", 1)]).eval()
    inner = net.backbone.representations(X)[1]
    head = net.branches["B1"].fc
    torch.testing.assert_close(net.all_logits(X)["B1"], head(inner.mean(dim=(2, 3))))
    assert sum(p.numel() for p in net.branches.parameters()) == 16 * 4 + 4


def test_dropout_option_is_active_in_training_only() -> None:
    net = dhm.create_model("wrn", depth=10, width=1, dropout=0.5, branches="none")
    assert not torch.equal(net.train()(X)["B0"], net(X)["B0"])
    assert torch.equal(net.eval()(X), net(X))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: dhm.create_model("resnet33"), "there is no network 'resnet33'; take one of resnet32"),
        (lambda: dhm.create_model("cifar_resnet", depth=21), r"depth must be 6n \+ 2 .* not 21"),
        (lambda: dhm.create_model("wrn", depth=11), r"depth must be 6n \+ 4 .* not 11"),
        (lambda: dhm.create_model("wrn", depth=10, width=0), "width must be at least 1, not 0"),
        (lambda: dhm.create_model("wrn28_10", dropout=1.5), r"dropout must be in \[0, 1\), not 1.5"),
        (lambda: dhm.create_model("densenet", depth=41), r"depth without bottleneck must be 3n \+ 4"),
        (lambda: dhm.create_model("resnet32", dropout=0.3), "resnet32 has no option 'dropout'; it takes depth"),
        (lambda: dhm.create_model("cifar_resnet", depth="20"), "option depth must be of type int, not '20'"),
        (lambda: dhm.create_model("resnet32", branches="both"), 'branches must be "paper", "none", "twin" or a list'),
        (lambda: dhm.create_model("resnet32", branches=[BranchSpec("B1", 4)]), "must be a stage from 0 to 3 .*, not 4"),
        (lambda: dhm.create_model("resnet32", branches=[BranchSpec("B1", 1, (1,))]), "each of the 2 stages"),
        (lambda: dhm.create_model("resnet32", branches=[BranchSpec("B1", 1)] * 2), "branch names must differ"),
        (lambda: BranchSpec("B0", 1), "a branch cannot be called 'B0'"),
        (lambda: dhm.create_model("resnet32", branches=[{"name": "B1"}]), "a list of BranchSpec, not .*'name': 'B1'"),
        (lambda: dhm.create_model("mobilenet", width=math.inf), "option width must be a finite number, not inf"),
        (lambda: BranchSpec(1, 1), "a branch cannot be called 1"),
        (lambda: BranchSpec("keys", 1), "a branch cannot be called 'keys'"),
        (lambda: BranchSpec("B1", "2"), "branch B1: root must be the whole number of a stage, not '2'"),
        (lambda: BranchSpec("B1", 2.5), "root must be the whole number of a stage, not 2.5"),
        (lambda: BranchSpec("B1", True), "root must be the whole number of a stage, not True"),
        (lambda: BranchSpec("B1", 2, ["a"]), r"branch B1: depths must be a list of whole numbers, not \['a'\]"),
        (lambda: BranchSpec("B1", 2, (5.5,)), r"depths must be a list of whole numbers, not \(5.5,\)"),
        (lambda: BranchSpec("B1", 2, "5"), "depths must be a list of whole numbers, not '5'"),
        (lambda: BranchSpec("B1", 2, 5), "depths must be a list of whole numbers, not 5"),
        (lambda: BranchSpec("B1", 1, (), -1.0), "branch B1: width must be a positive number, not -1.0"),
        (lambda: BranchSpec("B1", 1, (), "2"), "width must be a positive number, not '2'"),
        (lambda: BranchSpec("B1", 1, (), math.inf), "width must be a positive number, not inf"),
        (lambda: BranchSpec("B1", 1, (), math.nan), "width must be a positive number, not nan"),
        (lambda: network_of(dhm.Config(branches=[{"name": "B1", "root": "2"}])), "branch B1: root must be the whole"),
        (lambda: network_of(dhm.Config(branches=[{"name": "B1", "rooot": 2}])), "by name, root, depths and width"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_told_in_a_sentence(call, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        call()


@pytest.mark.parametrize(
    ("family", "options"),
    SMALL,
)
def test_a_branch_without_channels_is_told(family: str, options: dict) -> None:
    stages = len(dhm.create_model(family, branches="none", **options).backbone.stages)
    with pytest.raises(dhm.InputError, match=r"width 0\.001 leaves less than 1 of \d+ channels"):
        dhm.create_model(family, branches=[BranchSpec("B1", stages - 1, (1,), 0.001)], **options)


@pytest.mark.parametrize(("family", "options"), SMALL)
def test_branches_of_any_width_answer(family: str, options: dict) -> None:
    """Half as wide, a stage keeps the channels it is given, while it halves height and width."""
    specs = [replace(spec, width=0.5) for spec in branches_of(family, blueprint(family, **options), "paper")]
    logits = dhm.create_model(family, 10, specs, **options)(X)
    assert [z.shape for z in logits.values()] == [(2, 10)] * 3


def test_for_a_while_a_network_answers_and_then_goes_on_in_the_modes_it_had() -> None:
    net = dhm.create_model("cifar_resnet", depth=8).train()
    net.backbone.eval()  # as the held layers of a run that starts from weights
    modes = [module.training for module in net.modules()]
    with answering(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == modes
    with pytest.raises(RuntimeError), answering(net):
        net(X[:, :1])  # one channel where three are needed
    assert [module.training for module in net.modules()] == modes
