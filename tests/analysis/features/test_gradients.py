"""Gradients of several classifiers at the shared trunk."""

import itertools
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_config
from torch import nn
from torch.nn import functional as F

import dhm
from dhm import BranchedNet, BranchSpec, DHMLoss
from dhm.analysis.features import agreement
from dhm.analysis.features.gradients import consistency, frozen, sharing, trunk_gradients
from dhm.data import load
from dhm.models import StagedNet
from dhm.records.weights import load_trained
from dhm.training.probes import fit_branches, load_branched
from dhm.zoo import network_of


def batch(count: int = 16, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=rng), torch.randint(0, classes, (count,), generator=rng)


@pytest.fixture
def net() -> BranchedNet:
    torch.manual_seed(0)
    return dhm.create_model("wrn", 5, depth=10, width=1, dropout=0.3)


def separate(net: BranchedNet, objective, batch_norm: str) -> dict[str, torch.Tensor]:
    """The gradient of an objective by every trunk parameter, from a forward pass of its own on a fresh copy."""
    copy = deepcopy(net).eval()
    if batch_norm == "batch":
        for module in copy.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
    objective(copy.all_logits(batch()[0])).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in copy.backbone.named_parameters()}


def stage_vector(net: BranchedNet, gradients: dict[str, torch.Tensor], stage: int) -> torch.Tensor:
    prefix = ("conv.", "layer1.", "layer2.", "layer3.")[stage]
    return torch.cat([g.flatten() for name, g in gradients.items() if name.startswith(prefix)])


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_cross_entropies_equal_separate_backward_passes(net: BranchedNet, batch_norm: str) -> None:
    labels = batch()[1]
    found = trunk_gradients(net, *batch(), DHMLoss("dsl"), batch_norm)
    assert {stage: tuple(heads) for stage, heads in found.items()} == sharing(net)
    truth = {
        head: separate(net, lambda logits, head=head: F.cross_entropy(logits[head], labels), batch_norm)
        for head in net.heads
    }
    table = consistency(net, [batch()], DHMLoss("dsl"), batch_norm)
    for row in table.itertuples():
        a, b = (stage_vector(net, truth[head], row.stage) for head in (row.first, row.second))
        torch.testing.assert_close(found[row.stage][row.first], a, rtol=1e-4, atol=1e-6)
        assert row.cosine == pytest.approx(float(F.cosine_similarity(a.double(), b.double(), dim=0)), abs=1e-5)
        assert row.norm_first == pytest.approx(float(a.norm()), rel=1e-4)


@pytest.mark.parametrize("direction", ["both", "top_down"])
def test_full_losses_equal_separate_backward_passes(net: BranchedNet, direction: str) -> None:
    """Each classifier's own cross-entropy and what it learns from its teachers; together the training gradient."""
    labels, loss = batch()[1], DHMLoss("dhm", direction=direction)
    found = trunk_gradients(net, *batch(), loss, "running")

    def own(logits: dict[str, torch.Tensor], head: str) -> torch.Tensor:
        order = list(logits)
        teachers = [p for p in order if p != head and (direction == "both" or order.index(p) < order.index(head))]
        pulls = [
            F.kl_div(logits[head].log_softmax(1), logits[p].detach().softmax(1), reduction="batchmean")
            for p in teachers
        ]
        return F.cross_entropy(logits[head], labels) + sum(pulls)

    for head in net.heads:
        truth = separate(net, lambda logits, head=head: own(logits, head), "running")
        for stage, gradients in found.items():
            if head in gradients:
                torch.testing.assert_close(gradients[head], stage_vector(net, truth, stage), rtol=1e-4, atol=1e-6)
    total = separate(net, lambda logits: loss(logits, labels)[0], "running")
    for stage, gradients in found.items():
        torch.testing.assert_close(sum(gradients.values()), stage_vector(net, total, stage), rtol=1e-4, atol=1e-5)


def test_which_classifiers_share_which_stage() -> None:
    specs = [BranchSpec("B1", 2, (1,)), BranchSpec("B2", 1, (1, 1)), BranchSpec("B3", 0)]
    net = dhm.create_model("cifar_resnet", 5, specs, depth=8)
    assert sharing(net) == {0: ("B0", "B1", "B2", "B3"), 1: ("B0", "B1", "B2"), 2: ("B0", "B1")}


def test_nothing_of_the_network_changes(net: BranchedNet) -> None:
    net.train()
    net.backbone.layer1.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    consistency(net, [batch()], DHMLoss("dhm"), "batch")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert modes == [module.training for module in net.modules()]
    assert all(p.grad is None for p in net.parameters())


def linear_net(sign: float) -> BranchedNet:
    """A trunk of one linear map and two classifiers that read the same features with the same or opposite weights."""
    torch.manual_seed(0)
    backbone = StagedNet({"flatten": nn.Flatten()}, [{"layer1": nn.Linear(192, 4)}], {"fc": nn.Linear(4, 2)}, [192, 4])
    branch = StagedNet({}, [], {"fc": nn.Linear(4, 2)}, [4])
    branch.fc.load_state_dict({"weight": sign * backbone.fc.weight.data, "bias": sign * backbone.fc.bias.data})
    return BranchedNet(backbone, {"B1": (1, branch)})


def test_classifiers_that_agree_and_disagree_by_construction() -> None:
    batches = [batch(classes=2, seed=seed) for seed in range(4)]
    for sign, cosine in ((1.0, 1.0), (-1.0, -1.0)):
        net = linear_net(sign)
        if sign < 0:  # opposite logits at balanced, uninformative weights pull the trunk in opposite directions
            for head in (net.backbone.fc, net.branches["B1"].fc):
                head.weight.data *= 1e-4
                head.bias.data.zero_()
        row = consistency(net, batches, DHMLoss("dsl"), "running").set_index("stage").loc[1]
        assert row.cosine == pytest.approx(cosine, abs=1e-3)
        assert row.batch_cosine == pytest.approx(cosine, abs=1e-3)
        assert row.conflicting == (sign < 0)
        assert row.norm_first == pytest.approx(row.norm_second, rel=1e-2)
        assert row.high - row.low < 1e-2


def test_table_of_micro_batches(net: BranchedNet) -> None:
    """The mean gradient weighs images alike, and the interval is the t interval of the micro-batches."""
    batches = [batch(16, seed=1), batch(8, seed=2), batch(8, seed=3)]
    table = consistency(net, batches, DHMLoss("dsl"), "running")
    together = [tuple(torch.cat(part) for part in zip(*batches, strict=True))]
    np.testing.assert_allclose(
        table["cosine"], consistency(net, together, DHMLoss("dsl"), "running")["cosine"], atol=1e-5
    )
    assert len(table) == 3 + 3 + 1
    assert (table["batches"] == 3).all()
    singles = np.array([consistency(net, [b], DHMLoss("dsl"), "running")["cosine"] for b in batches])
    np.testing.assert_allclose(table["batch_cosine"], singles.mean(axis=0), atol=1e-6)
    half = 4.302653 * singles.std(axis=0, ddof=1) / 3**0.5  # t(0.975) at two degrees of freedom
    np.testing.assert_allclose(table["high"] - table["batch_cosine"], half, rtol=1e-4)


def test_branches_fitted_on_a_frozen_trunk(tmp_path) -> None:
    config = small_config(method="baseline", epochs=2)
    record = dhm.fit(config, runs_dir=tmp_path, accelerator="cpu", progress=False)
    trained, data = load_trained(record), load(config)
    net = fit_branches(trained, config, data.train, progress=False)
    for name, value in trained.backbone.state_dict().items():
        assert torch.equal(value, net.backbone.state_dict()[name])
    images, labels = next(data.test.test_batches(200))
    with torch.no_grad():
        errors = {head: float((z.argmax(1) != labels).float().mean()) for head, z in net.all_logits(images).items()}
    assert all(errors[head] < 0.8 for head in ("B1", "B2"))  # chance is 0.9 +- 0.02
    again = load_branched(record)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(p.requires_grad for p in itertools.chain(net.parameters(), trained.parameters()))
    with pytest.raises(dhm.InputError, match="none to fit"):
        fit_branches(trained, config.replace(branches="none"), data.train)
    with pytest.raises(dhm.InputError, match="is not the"):
        fit_branches(trained, config.replace(options={"depth": 14}), data.train)


def test_a_network_of_streamed_images_is_looked_at_too(folder: Path, tmp_path: Path) -> None:
    """The branches of a baseline are fitted on images read from files, and its gradients are taken on such images."""
    config = dhm.Config(
        arch="imagenet_resnet", options={"depth": 10, "base": 4}, dataset=str(folder), image_size=32,
        augment="scale", method="baseline", batch_size=6, epochs=2, milestones=(), lr=0.01,
    )  # fmt: skip
    record = dhm.fit(config, runs_dir=tmp_path / "runs", accelerator="cpu", progress=False)
    net = load_branched(record, "cpu")
    weights = {head: [layer.weight for layer in net.branches[head].modules() if isinstance(layer, nn.Conv2d)]
               for head in net.heads[1:]}  # fmt: skip
    torch.manual_seed(config.seed)
    fresh = network_of(config.replace(method="dsl"), 3)
    for head, learned in weights.items():
        drawn = [layer.weight for layer in fresh.branches[head].modules() if isinstance(layer, nn.Conv2d)]
        assert all(not torch.equal(a, b) for a, b in zip(learned, drawn, strict=True))
    table = agreement.measure({("baseline", 0, 2): net}, load(config).test, "dsl", "batch", 3, 6)
    assert set(table["second"]) == {"B1", "B2"}
    assert table["cosine"].between(-1, 1).all()


def test_branches_are_fitted_by_the_optimizer_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(method="baseline", epochs=1, optimizer="amsgrad", lr=1e-3)
    monkeypatch.setattr(torch.optim, "SGD", lambda *_, **__: pytest.fail("another optimizer"))
    fit_branches(network_of(config, 10), config, load(config).train, progress=False)


def test_bad_input_is_told(net: BranchedNet) -> None:
    with pytest.raises(dhm.InputError, match="'eval'"), frozen(net, "eval"):
        pass
    with pytest.raises(dhm.InputError, match="baseline"):
        trunk_gradients(net, *batch(), DHMLoss("baseline"), "batch")
    plain = dhm.create_model("wrn", 5, "none", depth=10, width=1)
    with pytest.raises(dhm.InputError, match="share no layer"):
        consistency(plain, [batch()], DHMLoss("dsl"), "batch")
