"""The networks are the printed ones: tables generated from them against Tables 6-9, cell by cell."""

import pytest
import torch

import dhm
from dhm import flops
from dhm.analysis.networks import architecture
from dhm.zoo import MODELS, family_of

STEM = {  # Table 7 prints a stem of 2k channels for all; the released non-BC networks have 16
    "densenet40_12": [("conv1", "B0", "3x3, 16", "3x3, 24")],
    "densenet100_12": [("conv1", "B0", "3x3, 16", "3x3, 24")],
}
PRINTED = [name for name, entry in MODELS.items() if entry.source.startswith("Table ")]
"""Networks whose entry names a table and nothing else."""


@pytest.mark.parametrize("name", [name for name in PRINTED if name != "mobilenet_v1"])  # Table 10: tests/models
def test_equals_the_printed_table(name: str) -> None:
    size = 224 if family_of(name) == "imagenet_resnet" else 32
    with torch.device("meta"):
        net = dhm.create_model(name)
    table = architecture.table(net, size)
    layers = [f"conv{i}{'_x' * (i > 1)}" for i in range(1, len(table))]
    assert list(table.index.get_level_values("layer")) == [*layers, "classifier"]
    assert table.iloc[-1].to_dict() == dict.fromkeys(("B0", "B1", "B2"), "average pool, 100-d fc")
    found = architecture.departures(name, net, size)
    assert [tuple(cell[key] for key in architecture.DEPARTURE[1:]) for cell in found] == STEM.get(name, [])


def test_a_departure_is_found() -> None:
    """ResNet-20 is not the printed ResNet-32 in every stage, and its B2 neither."""
    with torch.device("meta"):
        net = dhm.create_model("cifar_resnet", depth=20)
    found = {(cell["layer"], cell["column"]) for cell in architecture.departures("resnet32", net, 32)}
    assert found == {
        ("conv2_x", "B0"),
        *(("conv3_x", h) for h in ("B0", "B2")),
        *(("conv4_x", h) for h in ("B0", "B1", "B2")),
    }
    with pytest.raises(dhm.InputError, match="print no network 'resnet20'"):
        architecture.departures("resnet20", net, 32)


@pytest.mark.parametrize("name", ["densenet40_12", "densenet100_12"])
def test_densenet_as_printed_is_an_option(name: str) -> None:
    stem = architecture.table(dhm.create_model(name, stem_channels=24)).loc["conv1"].iloc[0]
    assert stem.to_dict() == {"B0": "3x3, 24", "B1": "", "B2": ""}


def test_design_principles_give_the_printed_branches_of_shallow_networks() -> None:
    for name, family, options in [
        ("resnet32", "cifar_resnet", {"depth": 32}),
        ("wrn16_8", "wrn", {"depth": 16, "width": 8}),
        ("wrn28_10", "wrn", {"depth": 28, "width": 10}),
        ("densenet40_12", "densenet", {"depth": 40, "growth": 12}),
    ]:
        with torch.device("meta"):
            named, made = dhm.create_model(name), dhm.create_model(family, **options)
        assert {k: v.shape for k, v in named.state_dict().items()} == {k: v.shape for k, v in made.state_dict().items()}


def test_flops_agree_with_arithmetic() -> None:
    """ResNet-8: 3x3 convolutions of 16, 32, 64 channels at 32, 16, 8 pixels, and the classifier."""
    counts = flops.flops(dhm.create_model("cifar_resnet", depth=8, num_classes=10))
    convolutions = 32**2 * 9 * (3 * 16 + 2 * 16 * 16) + 16**2 * 9 * (16 * 32 + 32 * 32) + 8**2 * 9 * (32 * 64 + 64 * 64)
    assert counts["B0"] == convolutions + 64 * 10
    assert counts["B1"] == 8**2 * 9 * (32 * 128 + 128 * 128) + 128 * 10
    assert counts["B2"] == 16**2 * 9 * (16 * 32 + 32 * 32) + 8**2 * 9 * (32 * 64 + 64 * 64) + 64 * 10


def test_measuring_leaves_nothing_behind_even_after_an_error() -> None:
    net = dhm.create_model("cifar_resnet", depth=8).train()
    with pytest.raises(RuntimeError):
        architecture.table(net, -1)
    flops.flops(net)
    flops.inference_flops(net)
    assert all(module.training and not module._forward_hooks for module in net.modules())


def test_networks_are_built_at_the_papers_sizes() -> None:
    built = architecture.build(["resnet32", "mobilenet_v1"])
    assert {name: size for name, (_, size) in built.items()} == {"resnet32": 32, "mobilenet_v1": (256, 128)}
    assert built["mobilenet_v1"][0].backbone.classifier.out_features == 751
    assert next(built["resnet32"][0].parameters()).is_meta
    assert {"resnet32", "densenetbc100_12", "resnet152"} & set(architecture.paper_networks()) == {
        "resnet32",
        "resnet152",
    }
    with pytest.raises(dhm.InputError, match="there is no network 'resnet33'; take one of resnet32"):
        architecture.build(["resnet33"])


def test_departures_of_several_networks_are_those_of_each() -> None:
    compared, table = architecture.compare(["resnet32", "densenet40_12", "resnet34"])
    assert compared == 2  # ResNet-34 is printed nowhere
    assert table.to_dict("records") == [
        {"network": "densenet40_12", "layer": "conv1", "column": "B0", "ours": "3x3, 16", "printed": "3x3, 24"}
    ]


def test_costs_are_counted_on_the_networks() -> None:
    """Parameters of a network with weights, and multiply-adds of the plain one, counted apart."""
    table = architecture.costs(["resnet32"])
    row = table.loc["resnet32"]
    plain, branched = dhm.create_model("resnet32", branches="none"), dhm.create_model("resnet32")
    assert row["parameters of B0 (M)"] == sum(p.numel() for p in plain.parameters()) / 1e6
    of_branches = row["of B1 (M)"] + row["of B2 (M)"]
    assert of_branches == pytest.approx(sum(p.numel() for p in branched.branches.parameters()) / 1e6)
    assert row["inference (G)"] == row["plain network (G)"] == flops.flops(plain)["B0"] / 1e9
    times = 1 + row["B1 adds (%)"] / 100 + row["B2 adds (%)"] / 100
    assert row["training, times the plain network"] == pytest.approx(times)
    assert "in 1 of 1 networks" in architecture.cost_sentence(table)
    assert f"**{times:.1f} to {times:.1f} times**" in architecture.cost_sentence(table)
    table["inference (G)"] *= 2
    assert "in 0 of 1 networks" in architecture.cost_sentence(table)


def test_operations_are_twice_the_multiply_adds() -> None:
    layer, image = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(1, 3, 6, 6)
    assert flops.operations(layer, image) == 2 * 8 * 3 * 9 * 36
