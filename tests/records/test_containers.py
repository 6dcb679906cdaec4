"""Files of other programs: written by these programs' own code or layout, read back bit by bit without running any."""

import argparse
import copy
import datetime
import random
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import dhm
from dhm.__main__ import main
from dhm.records import checkpoints
from dhm.records.weights import load_released, pretrained


def network() -> nn.Module:
    torch.manual_seed(0)
    return dhm.create_model("resnet32", 7, "none").main_only()


NET = network()
STATE = NET.state_dict()
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}


def prefixed(prefix: str, state: dict = STATE) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def averaged(net: nn.Module) -> dict:
    return AveragedModel(net).state_dict()


class Wrapped(nn.Module):
    """As DistributedDataParallel holds its network, which needs a process group."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class Lightning(nn.Module):
    """As a LightningModule: the network beside criterion and metric."""

    def __init__(self, name: str, alone: bool) -> None:
        super().__init__()
        setattr(self, name, network())
        if not alone:
            self.criterion = nn.CrossEntropyLoss(weight=torch.ones(7))


def lightning(name: str, alone: bool) -> dict:
    state = Lightning(name, alone).state_dict()
    callback = {"best_model_score": torch.tensor(1.0), "best_model_path": "x"}
    return {"epoch": 3, "pytorch-lightning_version": "2.6", "state_dict": state, "loops": {}, "optimizer_states": [],
            "callbacks": {"ModelCheckpoint{}": callback}}  # fmt: skip


def stepped() -> dict:
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def part_compiled() -> dict:
    net = network()
    net.layer1 = torch.compile(net.layer1)
    return net.state_dict()


CONTENTS: dict[str, Callable[[], dict]] = {
    "bare": lambda: STATE,
    "ddp": lambda: Wrapped(network()).state_dict(),
    "compiled": lambda: torch.compile(network()).state_dict(),
    "ddp of compiled": lambda: Wrapped(torch.compile(network())).state_dict(),
    "compiled ddp": lambda: torch.compile(Wrapped(network())).state_dict(),
    "part compiled": part_compiled,
    "fsdp": lambda: prefixed("_fsdp_wrapped_module."),
    "averaged": lambda: averaged(network()),
    "averaged ddp": lambda: averaged(Wrapped(network())),
    "averaged compiled": lambda: averaged(torch.compile(network())),
    "compiled averaged": lambda: torch.compile(AveragedModel(network())).state_dict(),
    "data parallel": lambda: {"state_dict": nn.DataParallel(network()).state_dict(), "epoch": 1, "best_acc1": 71.0},
    "torchvision references": lambda: {"model": STATE, "optimizer": stepped(), "lr_scheduler": {"last_epoch": 3},
        "epoch": 3, "args": argparse.Namespace(lr=0.1, device="cuda"), "model_ema": averaged(network())},
    "timm": lambda: {"epoch": 3, "arch": "resnet32", "state_dict": STATE, "optimizer": stepped(), "version": 2,
        "args": argparse.Namespace(lr=0.1, mean=(0.5,)), "amp_scaler": {"scale": 65536.0}, "metric": np.float64(7),
        "state_dict_ema": OTHER},
    "timm ema alone": lambda: {"state_dict_ema": timm.utils.ModelEmaV3(network()).state_dict()},
    "lightning": lambda: lightning("model", True),
    "lightning, another name": lambda: lightning("resnet", True),
    "lightning with criterion": lambda: lightning("net", False),
    "lightning without its mark": lambda: {"state_dict": prefixed("model.")},
    "lightning compiled": lambda: {"state_dict": prefixed("model._orig_mod.")},
    "deepspeed": lambda: {"module": prefixed("module."), "dp_world_size": 8},
    "another word": lambda: {"resnet32": STATE, "optimizer": stepped()},
    "nested": lambda: {"checkpoint": {"model": STATE, "epoch": 2}, "rng": torch.get_rng_state()},
    "extra state": lambda: {**STATE, "layer1._extra_state": {"fp8": 1}},
    "numbers of numpy": lambda: {"state_dict": STATE, "best": np.float32(1), "n": np.int64(3), "ok": np.bool_(True),
        "curve": np.arange(5.0)},
    "plain objects": lambda: {"state_dict": STATE, "at": datetime.datetime(2020, 1, 1), "folder": Path("runs/x"),
        "cfg": types.SimpleNamespace(lr=1, steps=range(3)), "seen": frozenset([1])},
    "a run of this program": lambda: {"net": {**prefixed("backbone."), "branches.B1.fc.weight": torch.ones(7, 9)},
        "optimizer": stepped(), "at": {"epoch": 3}},
}  # fmt: skip


@pytest.mark.parametrize("form", ["zip", "legacy", "memory"])
@pytest.mark.parametrize("name", CONTENTS)
def test_the_plain_network_is_in_it(name: str, form: str, tmp_path: Path) -> None:
    content = CONTENTS[name]()
    if form != "memory":
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=form == "zip")
        content = checkpoints.load(tmp_path / "x.pth")
    plain = dhm.plain_state(content)
    assert plain.keys() == STATE.keys()
    assert all(torch.equal(plain[key], STATE[key]) for key in STATE)
    network().load_state_dict(plain)


@pytest.mark.parametrize("name", [name for name in CONTENTS if "run of this" not in name])
def test_load_released_reads_it_and_weights_start_from_it(name: str, tmp_path: Path) -> None:
    torch.save(CONTENTS[name](), tmp_path / "x.pth")
    net = load_released(tmp_path / "x.pth", "resnet32")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(net.eval()(x), copy.deepcopy(NET).eval()(x))
    tensors, _ = pretrained("resnet32", str(tmp_path / "x.pth"))
    assert tensors.keys() == {key for key in STATE if not key.startswith("fc.")}


def test_the_averaged_weights_are_taken_if_asked() -> None:
    plain = dhm.plain_state(CONTENTS["timm"](), ema=True)
    assert all(torch.equal(plain[key], OTHER[key]) for key in OTHER)


def test_a_run_of_this_program_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    net = dhm.create_model("resnet32", 7)
    torch.save({"net": net.state_dict(), "epoch": 3}, tmp_path / "best.pt")
    again, x = load_released(tmp_path / "best.pt"), torch.randn(2, 3, 32, 32)
    ours, theirs = (one.eval().all_logits(x) for one in (again, net))
    assert all(torch.equal(ours[head], theirs[head]) for head in ("B0", "B1", "B2"))
    assert dhm.plain_state(net.state_dict()).keys() == net.main_only().state_dict().keys()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_safetensors_whatever_the_name(name: str, tmp_path: Path) -> None:
    safetensors.torch.save_file(prefixed("model."), tmp_path / name, metadata={"format": "pt"})
    plain = dhm.plain_state(checkpoints.load(tmp_path / name))
    assert all(torch.equal(plain[key], STATE[key]) for key in STATE)


class Trap:
    """An object whose reading would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (lambda file: Trap(file), r"pathlib.*Path\.touch|builtins\.getattr|getattr"),
        (lambda file: network(), r"dhm\.models\.\S+"),
        (lambda file: print, "print"),
        (lambda file: Lightning, r"test_containers\.Lightning"),
    ],
)
def test_what_is_not_safe_is_named_and_not_run(thing: Callable, named: str, legacy: bool, tmp_path: Path) -> None:
    content = {"state_dict": STATE, "extra": thing(tmp_path / "sprung")}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(dhm.InputError, match=rf"x\.pth is damaged .*it holds ({named}), which may run code") as told:
        checkpoints.load(tmp_path / "x.pth")
    assert not {"\n", "\x1b"} & set(str(told.value))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"generator": STATE, "discriminator": STATE}, r"several sets of tensors \(generator, discriminator\)"),
        ({"epoch": 3, "best": torch.ones(1)}, "no state dict of a network"),
        ({}, "no state dict of a network"),
        ({"state_dict": {}}, "no state dict of a network"),
    ],
)
def test_no_network_is_told(content: dict, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        dhm.plain_state(content)


def test_a_name_that_only_some_tensors_have_is_the_networks_own() -> None:
    state = {"model.weight": torch.ones(1), "lm_head.weight": torch.ones(2)}
    assert dhm.plain_state(state).keys() == state.keys()


TEXTS = [b"hello this is plain text\n" * 5, b"", b"\x80", b"epoch 1 loss", b"PK\x03\x04", b"I am\n", b"{}", b"\0" * 64]


@pytest.mark.parametrize("text", TEXTS)
def test_evaluate_tells_of_a_file_that_is_none(text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "notes.txt").write_bytes(text)
    assert main(["evaluate", str(tmp_path / "notes.txt")]) == 2
    told = capsys.readouterr().err
    assert "notes.txt is damaged or no checkpoint of tensors (" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_read_or_told(kind: str, tmp_path: Path) -> None:
    """150 of each kind, cut short or with bytes overwritten."""
    small, file, rng = nn.Linear(3, 2).state_dict(), tmp_path / "x", random.Random(kind)
    if kind == "safetensors":
        safetensors.torch.save_file(small, file)
    else:
        torch.save(small, file, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    for i in range(150):
        content = bytearray(whole[: rng.randrange(len(whole))] if i % 3 == 0 else whole)
        for _ in range(3 if i % 3 and content else 0):
            content[rng.randrange(min(len(content), 400))] = rng.randrange(256)
        file.write_bytes(content)
        sentence = ""
        try:
            read = checkpoints.load(file)
        except dhm.InputError as error:
            sentence = str(error)
        assert sentence.startswith(str(file)) if sentence else isinstance(read, dict)
        assert not {"\n", "\x1b"} & set(sentence)
