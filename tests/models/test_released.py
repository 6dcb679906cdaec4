"""The networks are the released ones: parameters, logits and names against facts measured from that program."""

import math
import zlib
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import dhm
from dhm.records import checkpoints

NETWORKS = {"resnet32": "cifar/resnet32", "wrn16_8": "cifar/wrn_16_8", "densenetbc100_12": "cifar/densenet_bc_100_12"}
PARAMETERS = {  # of the released networks, by owner
    "resnet32": (470_004, 1_379_428, 298_212),
    "wrn16_8": (11_007_540, 31_044_196, 5_822_820),
    "densenetbc100_12": (800_032, 4_942_888, 599_944),
}


def fill(name: str, shape: list[int]) -> torch.Tensor:
    """The rule by which the reference filled weights and buffers."""
    s = torch.sin(torch.arange(math.prod(shape)).double() * 0.37 + zlib.crc32(name.encode()) % 1000).reshape(shape)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_mean"):
        return 0.1 * s
    if name.endswith("running_var"):
        return 1 + 0.5 * s.abs()
    if len(shape) == 4:
        return s * math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
    if len(shape) == 2:
        return s / math.sqrt(shape[1])
    return 1 + 0.1 * s if name.endswith("weight") else 0.1 * s


@pytest.fixture
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_answers_as_released(net: dhm.BranchedNet, facts: dict) -> None:
    size, expected = facts["input_size"], facts["logits"]
    batch = len(expected["B0"]["first5"])
    x = torch.sin(torch.arange(batch * 3 * size * size).double() * 0.01).reshape(batch, 3, size, size)
    with torch.no_grad():
        logits = net.eval().all_logits(x)
    assert list(logits) == ["B0", "B1", "B2"]
    for head, values in expected.items():
        for ours, theirs in (
            (logits[head][:, :5], torch.tensor(values["first5"])),
            (logits[head].abs().sum(dim=1), torch.tensor(values["abs_sum"])),
        ):
            assert torch.all((ours - theirs).abs() <= 1e-6 * theirs.abs() + 2e-6), head


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "module"])
@pytest.mark.parametrize("name", NETWORKS)
def test_released_file_gives_the_released_logits(
    name: str, prefix: str, wrapped: bool, tmp_path: Path, reference: dict
) -> None:
    facts = reference[NETWORKS[name]]
    state = {prefix + key: fill(key, shape) for key, shape in facts["tensors"].items()}
    content = (
        {"epoch": 164, "arch": name, "state_dict": state, "best_prec1": 70.0, "optimizer": {}} if wrapped else state
    )
    torch.save(content, tmp_path / "released.pth.tar")
    net = dhm.load_released(tmp_path / "released.pth.tar", name)
    assert_answers_as_released(net, facts)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_by_owner(name: str) -> None:
    with torch.device("meta"):
        groups = dhm.create_model(name).parameter_groups()
    assert tuple(sum(p.numel() for p in group) for group in groups.values()) == PARAMETERS[name]
    assert list(groups) == ["B0", "B1", "B2"]


def test_number_of_classes_comes_from_the_file(tmp_path: Path) -> None:
    net = dhm.create_model("cifar_resnet", num_classes=7, depth=8)
    released = {}
    for key, value in net.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "branches":
            branch, module, tail = rest.split(".", 2)
            released[f"module.{module}_head{branch[1]}.{tail}"] = value
        else:
            released[f"module.{rest}"] = value
    torch.save({"state_dict": released}, tmp_path / "net.pth")
    again = dhm.load_released(tmp_path / "net.pth", "cifar_resnet", depth=8)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), net.eval()(x))


@pytest.mark.parametrize("numbered", [True, False])
def test_dense_layers_without_bottleneck_under_either_name(numbered: bool, tmp_path: Path) -> None:
    """The released ones call their modules bn and conv; a transition's are called so in all networks.

    Against the formula BN-ReLU-conv on the file's own tensors, layer for layer.
    """
    net = dhm.create_model("densenet40_12", num_classes=5)
    released = {}
    for key, value in net.state_dict().items():
        part, _, rest = key.partition(".")
        owner, _, name = rest.partition(".") if part == "branches" else ("", "", rest)
        module, _, inner = name.partition(".")
        if module.startswith("layer") and not numbered:
            inner = inner.replace(".bn1.", ".bn.").replace(".conv1.", ".conv.")
        released[f"{module}_head{owner[1]}.{inner}" if owner else f"{module}.{inner}"] = fill(key, list(value.shape))
    assert ("layer2.0.conv1.weight" in released) is numbered
    torch.save(released, tmp_path / "net.pth")
    again = dhm.load_released(tmp_path / "net.pth").eval()
    x = F.conv2d(images := torch.randn(2, 3, 32, 32), released["conv1.weight"].float(), padding=1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        own = [released[f"{name}.{part}"].float() for part in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *own))

    conv, bn = ("conv1", "bn1") if numbered else ("conv", "bn")
    for stage in (1, 2, 3):
        for layer in range(12):
            name = f"layer{stage}.{layer}"
            more = F.conv2d(norm(x, f"{name}.{bn}"), released[f"{name}.{conv}.weight"].float(), padding=1)
            x = torch.cat([x, more], dim=1)
        if stage < 3:
            name = f"transition{stage}"
            x = F.avg_pool2d(F.conv2d(norm(x, f"{name}.bn"), released[f"{name}.conv.weight"].float()), 2)
    logits = F.linear(norm(x, "bn").mean((2, 3)), released["fc.weight"].float(), released["fc.bias"].float())
    with torch.no_grad():
        torch.testing.assert_close(again(images), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not a checkpoint", "damaged"),
        ({"state_dict": {}}, "no state dict"),
        ({"epoch": 3}, "no state dict"),
        ({"conv1.weight": torch.zeros(3)}, "no classifier named fc"),
        ({"fc.weight": torch.zeros(100, 64)}, "does not fit resnet32: it has no tensor"),
        ({"fc.weight": torch.tensor(1.0)}, "has no classifier named fc"),
        ([1, 2], "holds a list"),
    ],
)
def test_wrong_file_is_told_in_a_sentence(content: object, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(dhm.InputError, match=sentence):
        dhm.load_released(file, "resnet32")


def test_released_file_of_another_network_is_told(tmp_path: Path) -> None:
    net = dhm.create_model("cifar_resnet", depth=8)
    torch.save({k.removeprefix("backbone."): v for k, v in net.state_dict().items() if k.startswith("backbone")},
               tmp_path / "x.pth")  # fmt: skip
    with pytest.raises(dhm.InputError, match=r"x\.pth does not fit resnet32: it has no tensor backbone\.layer1\.1"):
        dhm.load_released(tmp_path / "x.pth", "resnet32")


def test_quantized_weights_are_no_floats(tmp_path: Path) -> None:
    """Integers would be taken for weights of that size."""
    state = {k.removeprefix("backbone."): v for k, v in dhm.create_model("resnet32", 10, "none").state_dict().items()}
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save(halves, tmp_path / "half.pth")
    read = dhm.load_released(tmp_path / "half.pth", "resnet32").backbone.state_dict()
    assert all(torch.equal(read[k], v.to(read[k].dtype)) for k, v in halves.items())
    torch.save({**state, "conv1.weight": (100 * state["conv1.weight"]).to(torch.int8)}, tmp_path / "int8.pth")
    with pytest.raises(dhm.InputError, match=r"conv1\.weight holds torch\.int8, not floating-point numbers"):
        dhm.load_released(tmp_path / "int8.pth", "resnet32")


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"fc.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(dhm.InputError, match="damaged or no checkpoint"):
        checkpoints.load(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
