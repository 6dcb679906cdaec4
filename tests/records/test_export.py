"""`python -m dhm export`: the plain network out of what a program saved, read back by other programs' own readers."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from conftest import small_config
from PIL import Image, ImageOps
from test_containers import CONTENTS, OTHER, STATE, network

import dhm
from dhm.__main__ import main


def read(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("to", ["plain.safetensors", "new/folder/plain.pth", "plain"])
@pytest.mark.parametrize("content", ["timm", "torchvision references", "lightning compiled", "a run of this program"])
def test_a_file_of_the_plain_network_alone(
    content: str, to: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.save(CONTENTS[content](), tmp_path / "best.ckpt")
    assert main(["export", str(tmp_path / "best.ckpt"), "--to", str(tmp_path / to)]) == 0
    plain = read(tmp_path / to)
    assert plain.keys() == STATE.keys()
    assert all(torch.equal(plain[key], STATE[key]) for key in STATE)
    network().load_state_dict(plain)
    assert capsys.readouterr().out.endswith(f"{to}: {len(STATE)} tensors, {sum(t.numel() for t in plain.values()):,} "
                                            "numbers\n")  # fmt: skip


def test_a_run_answers_alike_in_torchvision_with_what_its_record_tells(folder: Path, tmp_path: Path) -> None:
    """As docs/usage.md says it: images by Pillow, numbers of result.json, the class of another package."""
    config = small_config(
        arch="imagenet_resnet", options={"depth": 10}, dataset=str(folder), image_size=16, classes=None,
        train_per_class=None, epochs=1, milestones=(), batch_size=7,
    )  # fmt: skip
    record = dhm.fit(config, runs_dir=tmp_path / "runs", accelerator="cpu", progress=False)
    assert main(["export", str(record.folder / "last.pt"), "--to", str(tmp_path / "plain.pth")]) == 0
    net = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)
    net.load_state_dict(torch.load(tmp_path / "plain.pth", weights_only=True))
    mean, std = (np.array(record.result["normalisation"][name]) for name in ("mean", "std"))
    files = sorted((folder / "val").glob("*/*.JPEG"))
    squares = [ImageOps.fit(Image.open(file).convert("RGB"), (16, 16), Image.Resampling.BOX) for file in files]
    images = (np.stack(squares) / 255 - mean) / std
    with torch.no_grad():
        logits = net.eval()(torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2))
    labels = torch.arange(3).repeat_interleave(2)
    expected = torch.from_numpy(record.predictions().nll[0].astype(np.float32))
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, labels, reduction="none"), expected,
                               rtol=1e-4, atol=1e-4)  # fmt: skip


def test_averaged_weights_and_a_file_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(CONTENTS["timm"](), tmp_path / "best.pth")
    command = ["export", str(tmp_path / "best.pth"), "--to", str(tmp_path / "plain.safetensors")]
    assert main(command) == 0
    first = (tmp_path / "plain.safetensors").read_bytes()
    assert main([*command, "--ema"]) == 2
    assert "plain.safetensors is there already; give another name, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "plain.safetensors").read_bytes() == first
    assert main([*command, "--ema", "--overwrite"]) == 0
    assert all(torch.equal(value, OTHER[key]) for key, value in read(tmp_path / "plain.safetensors").items())


def test_views_and_shared_tensors_become_tensors_of_their_own(tmp_path: Path) -> None:
    """safetensors takes neither as they are."""
    whole = torch.arange(12.0).view(3, 4)
    state = {"a": whole.T, "b": whole, "c": whole[:, 1]}
    torch.save(state, tmp_path / "x.pth")
    assert main(["export", str(tmp_path / "x.pth"), "--to", str(tmp_path / "x.safetensors")]) == 0
    assert all(torch.equal(value, state[key]) for key, value in read(tmp_path / "x.safetensors").items())


@pytest.mark.parametrize(
    ("file", "to", "sentence"),
    [
        ("nowhere.pth", "x.pth", "there is no checkpoint"),
        ("text.pth", "x.pth", "text.pth is damaged or no checkpoint of tensors"),
        ("numbers.pth", "x.pth", "numbers.pth holds no state dict of a network"),
        (".", "x.pth", "is a folder, a pipe or a device, not a checkpoint"),
        ("net.pth", "text.pth/x.pth", "text.pth/x.pth cannot be written: "),
        ("net.pth", ".", "is there already"),
    ],
)
def test_what_cannot_be_exported_is_told(
    file: str, to: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"best": torch.ones(1), "epoch": 3}, tmp_path / "numbers.pth")
    torch.save(STATE, tmp_path / "net.pth")
    assert main(["export", str(tmp_path / file), "--to", str(tmp_path / to)]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not (tmp_path / "x.pth").exists()
