"""Appendix G's comparators: a twin network, and the plain one at equal training FLOPs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import small_config
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import dhm
from dhm import plots
from dhm.analysis.evidence import price, results
from dhm.analysis.features.gradients import trunk_gradients
from dhm.analysis.statistics import Sample
from dhm.analysis.theory.branching import heads_after
from dhm.branches import MAIN, BranchSpec
from dhm.config import Config
from dhm.flops import at_equal_flops, flops, inference_flops, training_flops
from dhm.paper import recipes
from dhm.zoo import blueprint, network_of


def train(config: dhm.Config, folder: Path, **options) -> dhm.RunRecord:
    return dhm.fit(config, runs_dir=folder, accelerator="cpu", progress=False, **options)


def test_twins_gradients_are_those_of_two_networks() -> None:
    """Deep Mutual Learning written out: two networks drawn one after the other, each with its cross-entropy and its
    divergence from the other's constant prediction."""
    plan = replace(blueprint("cifar_resnet", depth=8), num_classes=7)
    torch.manual_seed(0)
    pair = [plan.network().double(), plan.network().double()]
    torch.manual_seed(0)
    net = dhm.create_model("cifar_resnet", 7, "twin", depth=8).double()
    assert net.heads == ("B0", "twin")
    x, target = torch.randn(6, 3, 12, 12, dtype=torch.float64), torch.tensor([0, 6, 2, 2, 5, 1])
    total, _ = dhm.DHMLoss()(net.train()(x), target)
    total.backward()
    logits = [one.train()(x) for one in pair]
    for i, student in enumerate(logits):
        loss = F.cross_entropy(student, target)
        for j, teacher in enumerate(logits):
            if j != i:
                loss = loss + F.kl_div(student.log_softmax(1), teacher.detach().softmax(1), reduction="batchmean")
        loss.backward(retain_graph=True)
    for ours, theirs in zip((net.backbone, net.branches["twin"]), pair, strict=True):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("name", ["resnet32", "densenet40_12", "wrn16_8", "resnet18", "mobilenet_v1"])
def test_twin_shares_nothing_and_doubles_everything(name: str) -> None:
    with torch.device("meta"):
        net = dhm.create_model(name, branches="twin")
    groups = net.parameter_groups()
    assert [p.shape for p in groups[MAIN]] == [p.shape for p in groups["twin"]]
    assert not {id(p) for p in groups[MAIN]} & {id(p) for p in groups["twin"]}
    counts = flops(net, 64)
    assert counts[MAIN] == counts["twin"]


def test_twins_have_no_gradients_to_compare_nor_a_fork() -> None:
    net = dhm.create_model("cifar_resnet", 5, "twin", depth=8)
    with pytest.raises(dhm.InputError, match="share no layer"):
        trunk_gradients(net, torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), dhm.DHMLoss("dsl"), "batch")
    with pytest.raises(dhm.InputError, match="share nothing"):
        heads_after(net, "B0", "twin")


def test_isolated_twin_is_the_network_itself() -> None:
    config = small_config(branches="twin", method="baseline")
    shapes = [
        {k: v.shape for k, v in network_of(c, 5).state_dict().items()}
        for c in (config, config.replace(isolated="twin"))
    ]
    assert shapes[0] == shapes[1]


def test_branch_from_the_image_may_have_other_depths() -> None:
    net = dhm.create_model("cifar_resnet", 5, [BranchSpec("B1", -1, (2, 1, 1), 0.5), BranchSpec("B2", 1)], depth=8)
    assert net.heads == ("B0", "B2", "B1")
    assert net.train()(torch.randn(2, 3, 8, 8))["B1"].shape == (2, 5)
    with pytest.raises(dhm.InputError, match="each of the 3 stages after stage 0"):
        dhm.create_model("cifar_resnet", 5, [BranchSpec("B1", -1, (1, 1))], depth=8)


def test_training_flops_by_hand() -> None:
    """Backward costs a convolution twice its forward pass, once for the weights and once for the input, which the
    first one is spared."""
    config = small_config(method="baseline")
    first = 8 * 8 * 9 * 3 * 16
    forward = flops(network_of(config), 8)[MAIN]
    assert training_flops(config) == 3 * forward - first
    assert training_flops(config.replace(method="dhm", branches="twin")) == 2 * (3 * forward - first)
    grouped = Config(arch="mobilenet_v1", method="baseline", image_size=32)  # its first has a stride of 2
    assert training_flops(grouped) == 3 * flops(network_of(grouped), 32)[MAIN] - 16 * 16 * 9 * 3 * 32


@pytest.mark.parametrize("arch", ["resnet32", "densenet40_12", "wrn16_8", "resnet18", "resnet50"])
def test_training_flops_as_torch_counts_them(arch: str) -> None:
    """Where no convolution is grouped, in the backward pass itself."""
    with torch.device("meta"):
        net = dhm.create_model(arch).eval()
        with FlopCounterMode(display=False) as counter:
            torch.stack([z.sum() for z in net.all_logits(torch.zeros(1, 3, 32, 32)).values()]).sum().backward()
    assert training_flops(Config(arch=arch, method="dsl", image_size=32)) == counter.get_total_flops() // 2


@pytest.mark.parametrize("arch", ["resnet32", "densenetbc100_12", "wrn16_8", "resnet50", "mobilenet_v1"])
def test_flops_as_torch_counts_them(arch: str) -> None:
    """Of the plain network, and of all classifiers together, which share the trunk."""
    net, image, totals = dhm.create_model(arch).eval(), torch.zeros(1, 3, 32, 32), []
    for answer in (net, net.all_logits):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            answer(image)
        totals.append(counter.get_total_flops() // 2)
    assert [inference_flops(net), sum(flops(net).values())] == totals


@pytest.mark.parametrize("arch", ["resnet32", "wrn16_8", "densenet40_12"])
def test_equal_flops_to_the_nearest_epoch(arch: str) -> None:
    run = recipes.table1("paper", [arch], ["dhm"], [3], mimic_weights={"B0<-B1": 0.5})[0]
    plain = at_equal_flops(run)
    epoch = training_flops(plain)
    assert abs(plain.epochs * epoch - run.epochs * training_flops(run)) <= epoch
    assert (plain.method, plain.seed, plain.lr, plain.mimic_weights) == ("baseline", 3, run.lr, {})
    for ours, theirs in zip(plain.milestones, run.milestones, strict=True):
        assert ours / plain.epochs == pytest.approx(theirs / run.epochs, abs=1 / plain.epochs)


def test_prices_of_comparators(tmp_path: Path) -> None:
    configs = recipes.appendix_g("smoke", [0], epochs=2, train_per_class=16, image_size=8)
    records = [train(config, tmp_path) for config in configs]
    runs = dhm.load_runs(*[record.folder for record in records])
    table = price.prices(runs).droplevel("network")
    assert list(table.index) == ["baseline", "dsl", "dhm", "dml", "baseline, equal FLOPs"]
    assert table["inference"].nunique() == 1
    assert table.loc["dml", "parameters"] == 2 * table.loc["baseline", "parameters"]
    assert table.loc["dsl", "training"] == table.loc["dhm", "training"]
    one_epoch = table.loc["baseline", "training"] / 2
    assert abs(table.loc["baseline, equal FLOPs", "training"] - table.loc["dhm", "training"]) <= one_epoch
    (ax,) = plots.price({"quick": price.prices(runs)}).axes
    assert len(ax.get_legend().get_texts()) == 5
    assert set(results.samples(runs)) >= {("cifar_resnet_depth8", name) for name in table.index}
    schedules = price.schedules(configs)
    assert schedules.loc["baseline (equal FLOPs)", "epochs"] == configs[-1].epochs > configs[0].epochs
    assert schedules.loc["DML", "learning rate"] == "× 0.1 at 1"
    epoch, metrics = price.by_epoch(records)["table1"]["dhm"]
    assert epoch * configs[2].epochs == table.loc["dhm", "training"]
    assert metrics == [records[2].metrics]
    (sentence, other) = price.spent(records)
    assert sentence.startswith("**appendix_g**: 2 runs, ")
    assert other.startswith("**table1**: 3 runs, ")


def test_gains_without_a_printed_one_are_told_apart_or_not() -> None:
    sample = {("net", name): Sample(mean, 0.2, 5) for name, mean in (("a", 30.0), ("b", 28.0), ("c", 30.05))}
    table = price.told_apart(results.gains(sample, [("a", "b"), ("b", "a"), ("a", "c")]))
    assert list(table["error of the first named is"]) == ["lower", "higher", "not told apart"]


def test_a_network_for_re_identification_is_told_what_it_lacks_for_a_table_of_imagenet() -> None:
    with pytest.raises(dhm.InputError, match="mobilenet_v1 has no branch B3"):
        recipes.table4("paper", arch="mobilenet_v1")
