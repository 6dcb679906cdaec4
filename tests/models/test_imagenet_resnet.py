"""The ImageNet networks: the released ones, torchvision's, and the recipes of Tables 2, 4 and 5."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from test_released import _double as _double
from test_released import assert_answers_as_released, fill
from torch.nn import functional as F
from torchvision.transforms import v2

import dhm
from dhm import zoo
from dhm.__main__ import main, parser
from dhm.options import configs_from
from dhm.paper import presets, recipes
from dhm.records.weights import our_name

PARAMETERS = {  # of the released networks, by owner
    "resnet18": (11_689_512, 31_968_232, 9_825_768),
    "resnet50": (25_557_032, 58_668_008, 16_297_960),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_by_owner(name: str) -> None:
    with torch.device("meta"):
        groups = dhm.create_model(name, num_classes=1000).parameter_groups()
    assert tuple(sum(p.numel() for p in group) for group in groups.values()) == PARAMETERS[name]


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", PARAMETERS)
def test_released_network_gives_the_released_logits(name: str, reference: dict) -> None:
    facts = reference[f"imagenet/{name}"]
    state = {our_name(f"module.{key}"): fill(key, shape) for key, shape in facts["tensors"].items()}
    with torch.device("meta"):
        net = dhm.create_model(name, num_classes=1000)
    net.load_state_dict(state, assign=True)
    assert_answers_as_released(net, facts)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_backbone_is_torchvisions_name_for_name(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = dhm.create_model(name, num_classes=1000).main_only(), getattr(torchvision.models, name)()
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_weights_go_to_and_from_torchvision(name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = getattr(torchvision.models, name)(num_classes=10), dhm.create_model(name, num_classes=10)
    x = torch.randn(4, 3, 64, 64)
    for net in (theirs, ours):  # running statistics that are not the first ones
        net.train()
        net(x)
        net.eval()
    copy = getattr(torchvision.models, name)(num_classes=10)
    copy.load_state_dict(ours.main_only().state_dict())
    torch.testing.assert_close(copy.eval()(x), ours(x))
    ours.main_only().load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


def as_released(net: dhm.BranchedNet) -> dict[str, torch.Tensor]:
    """A network's weights under the released program's names."""
    released = {}
    for key, value in net.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "branches":
            branch, module, tail = rest.split(".", 2)
            rest = f"{module}_head{branch[1]}.{tail}"
        released[f"module.{rest}"] = value
    return released


def test_released_file_is_recognised(tmp_path: Path) -> None:
    net = dhm.create_model("resnet18", num_classes=12).eval()
    torch.save({"epoch": 90, "state_dict": as_released(net)}, tmp_path / "dhm.pth.tar")
    again = dhm.load_released(tmp_path / "dhm.pth.tar").eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again.all_logits(x), net.all_logits(x), rtol=0, atol=0)


def test_torchvision_file_is_the_plain_network(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet34(num_classes=12).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}  # an old file
    torch.save(state, tmp_path / "resnet34.pth")
    net = dhm.load_released(tmp_path / "resnet34.pth")
    x = torch.randn(2, 3, 64, 64)
    assert net.heads == ("B0",)
    torch.testing.assert_close(net.eval()(x), theirs(x))
    torch.save({**state, "conv1.weight": torch.zeros(8, 3, 7, 7)}, tmp_path / "odd.pth")
    with pytest.raises(dhm.InputError, match="none of resnet32"):
        dhm.load_released(tmp_path / "odd.pth")


def test_third_branch_of_table_9() -> None:
    """128 x 1, 256 x 1, 512 x 2 after conv2_x."""
    with torch.device("meta"):
        specs = [*zoo.MODELS["resnet18"].branches, *zoo.EXTRA_BRANCHES["resnet18"]]
        net = dhm.create_model("resnet18", branches=specs)
    assert net.heads == ("B0", "B1", "B2", "B3")
    assert net.roots["B3"] == 1
    shapes = [tuple(v.shape[:2]) for k, v in net.branches["B3"].named_parameters() if k.endswith("conv1.weight")]
    assert shapes == [(128, 64), (256, 128), (512, 256), (512, 512)]


def test_unknown_depth_is_told() -> None:
    with pytest.raises(dhm.InputError, match=r"depth must be one of 10, 18, 34, 50, 101, 152, not 20"):
        dhm.create_model("imagenet_resnet", depth=20)


def test_one_command_from_released_files_to_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors and likelihoods as torchvision's own folder, transforms and network give them."""
    net = dhm.create_model("resnet18", num_classes=3).eval()
    theirs = torchvision.models.resnet18(num_classes=3).eval()
    torch.save({"state_dict": as_released(net)}, tmp_path / "r18_dhm.pth.tar")
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    digest = hashlib.sha256((tmp_path / "resnet18.pth").read_bytes()).hexdigest()
    weights = {"IMAGENET1K_V1": SimpleNamespace(url=f"https://host/resnet18-{digest[:8]}.pth")}
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)
    files = [str(tmp_path / name) for name in ("r18_dhm.pth.tar", "resnet18.pth")]
    assert main(["evaluate", *files, "--dataset", str(folder), "--image-size", "56", "--accelerator", "cpu"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[-5] for line in lines] == ["B0", "B1", "B2", "B0"]
    assert [" ".join(line[1:-6]) for line in lines[::3]] == ["r18_dhm.pth.tar", "torchvision IMAGENET1K_V1 (baseline)"]
    normal = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    change = v2.Compose([v2.Resize(64), v2.CenterCrop(56), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normal])
    images = torchvision.datasets.ImageFolder(str(folder / "val"), change)
    x, y = torch.stack([image for image, _ in images]), torch.tensor(images.targets)
    copy = torchvision.models.resnet18(num_classes=3).eval()
    copy.load_state_dict(net.main_only().state_dict())
    for line, network in ((lines[0], copy), (lines[3], theirs)):
        logits = network(x)
        assert float(line[-4]) == pytest.approx(100 * (logits.argmax(1) != y).float().mean().item(), abs=1e-3)
        assert float(line[-2]) == pytest.approx(F.cross_entropy(logits, y).item(), abs=2e-3)
    assert main(["evaluate", files[0], "--dataset", "fashion-mnist-mini", "--image-size", "32"]) == 2
    assert "the network has 3 classes, but fashion-mnist-mini has 10" in capsys.readouterr().err


def test_isolated_branch_is_the_branch_on_its_trunk() -> None:
    """Alone it gives the logits it gives among its peers, from the same weights."""
    together = zoo.network_of(dhm.Config(arch="resnet18"), 10).eval()
    x = torch.randn(2, 3, 32, 32)
    for name, root in (("B1", 3), ("B2", 2)):
        alone = zoo.network_of(dhm.Config(arch="resnet18", method="baseline", isolated=name), 10).eval()
        assert alone.heads == ("B0",)
        trunk = {k: v for k, v in together.main_only().state_dict().items() if k in alone.main_only().state_dict()}
        alone.main_only().load_state_dict({**trunk, **together.branches[name].state_dict()})
        torch.testing.assert_close(alone(x), together.all_logits(x)[name])
        used = sum(p.numel() for p in alone.parameters())
        trunk_modules = [together.backbone.stem, *together.backbone.stages[:root], together.branches[name]]
        assert used == sum(p.numel() for module in trunk_modules for p in module.parameters())


def test_isolated_is_for_the_baseline_and_names_a_branch() -> None:
    with pytest.raises(dhm.InputError, match='only method "baseline" trains a branch alone'):
        dhm.Config(isolated="B1")
    with pytest.raises(dhm.InputError, match="isolated must be one of B0, B1, B2, not 'B7'"):
        zoo.network_of(dhm.Config(arch="resnet18", method="baseline", isolated="B7"))


def test_recipes_of_the_text() -> None:
    runs = recipes.table2("paper")
    assert {(r.epochs, r.batch_size, r.lr, r.milestones, r.gamma, r.weight_decay) for r in runs} == {
        (90, 256, 0.1, (30, 60), 0.1, 1e-4)
    }
    assert {r.milestones for r in recipes.table2("released")} == {(31, 61)}
    rows = [(r.arch, r.method, r.augment) for r in runs]
    deep = [(arch, m, "scale") for arch in ("resnet50", "resnet101", "resnet152") for m in ("baseline", "dsl", "dhm")]
    assert sorted(rows) == sorted(
        [("resnet18", "baseline", "scale"), ("resnet18", "dsl", "scale"), ("resnet18", "dhm", "fixed_scale"),
         ("resnet18", "baseline", "fixed_scale"), ("resnet18", "dsl", "fixed_scale"), *deep]
    )  # fmt: skip
    assert [r.name for r in recipes.table2("paper", controls=False)] == [r.name for r in runs if r not in runs[3:5]]
    assert presets.settings("paper", "resnet34", "dhm")["augment"] == "fixed_scale"


def test_command_line_trains_the_runs_of_the_table() -> None:
    """The two commands of docs/cluster.md are Table 2."""
    start = ["train", "--preset", "paper", "--experiment", "imagenet"]
    rows = [*start, "--arch", *recipes.TABLE2, "--method", "baseline", "dsl", "dhm"]
    controls = [*start, "--arch", "resnet18", "--method", "baseline", "dsl", "--augment", "fixed_scale"]
    runs = [run for line in (rows, controls) for run in configs_from(parser().parse_args(line))]
    assert {run.name for run in runs} == {run.name for run in recipes.table2("paper")}


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_tables_share_their_runs(preset: str) -> None:
    """What stands in several tables is one record, so it is trained once; and every network can be built."""
    tables = [f(preset) for f in (recipes.table4, recipes.table5, recipes.directions, recipes.branch_design)]
    assert [len(runs) for runs in tables] == [6, 7, 7, 6]
    arch = "imagenet_resnet" if preset in ("quick", "smoke") else "resnet18"
    table2 = {run.name for run in recipes.table2(preset, [arch])}
    for runs in tables:
        assert len({run.name for run in runs}) == len(runs)
        assert len(table2 & {run.name for run in runs}) >= 2
        assert {run.experiment for run in runs} == {"imagenet"}
        with torch.device("meta"):
            heads = [zoo.network_of(run).heads for run in runs]
        assert ("B0",) in heads
    assert [zoo.network_of(run).heads for run in tables[0]][-1] == ("B0", "B1", "B2", "B3")


def test_simple_heads_are_bare_classifiers_at_the_same_roots() -> None:
    bare = next(r for r in recipes.branch_design("paper") if r.branches != "paper")
    with torch.device("meta"):
        net = zoo.network_of(bare, 1000)
    assert net.roots == {"B1": 3, "B2": 2}
    counts = {name: sum(p.numel() for p in group) for name, group in net.parameter_groups().items()}
    assert (counts["B1"], counts["B2"]) == (256 * 1000 + 1000, 128 * 1000 + 1000)


def test_smoke_run_of_every_kind_of_row(tmp_path: Path) -> None:
    runs = [recipes.table2("smoke")[2], recipes.table5("smoke")[2], recipes.branch_design("smoke")[2]]
    for config in runs:
        record = dhm.fit(config.replace(epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
        assert tuple(record.result["last"]["heads"]) == zoo.network_of(config).heads


def test_digest_of_older_configurations_is_unchanged() -> None:
    """Fields added later are neutral by default."""
    assert dhm.Config().digest == "44136fa355"
    assert dhm.Config(method="baseline", seed=3).digest == "f23890b927"
