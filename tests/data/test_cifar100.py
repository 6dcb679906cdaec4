"""CIFAR-100 from either of its sources, and what is not CIFAR-100."""

import hashlib
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from PIL import Image

import dhm
from dhm.data import cifar100, load

COUNTS = {"train": 5, "test": 2}
"""Images a class, in the place of 500 and 100."""


@pytest.fixture(autouse=True)
def _fewer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "published" not in request.node.name:
        monkeypatch.setattr(cifar100, "PER_CLASS", {"train": COUNTS["train"], "val": COUNTS["test"]})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in CIFAR-100's shape: as torchvision's pickles, and in folders/ the same images as PNG files."""
    folder = tmp_path_factory.mktemp("noise")
    base = folder / "cifar-100-python"
    base.mkdir()
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        labels = rng.permutation(np.repeat(np.arange(100), count))
        pixels = rng.integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
        content = {"data": pixels.reshape(-1, 3072), "fine_labels": labels.tolist()}
        (base / split).write_bytes(pickle.dumps(content))
        for name in cifar100.CLASSES:
            (folder / "folders" / "cifar100" / split / name).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            file = folder / "folders" / "cifar100" / split / cifar100.CLASSES[label] / f"{i}.png"
            Image.fromarray(image.transpose(1, 2, 0)).save(file, compress_level=0)
    (base / "meta").write_bytes(pickle.dumps({"fine_label_names": list(cifar100.CLASSES)}))
    return folder


@pytest.fixture
def _registered(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision checks sums, so those of the noise take the place of the published ones."""
    from torchvision.datasets import CIFAR100

    base = data_dir / CIFAR100.base_folder
    sums = {name: hashlib.md5((base / name).read_bytes()).hexdigest() for name in (*COUNTS, "meta")}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})


@pytest.mark.usefixtures("_registered")
def test_either_source_is_the_same_set(data_dir: Path) -> None:
    """The same images in the same order, so the same batches; the source is told, and is no part of the identity."""
    config = dhm.Config(dataset="cifar100")
    files, folders = load(config, data_dir), load(config, data_dir / "folders")
    by_path = load(config.replace(dataset=str(data_dir / "folders" / "cifar100")))
    assert files.summary() == folders.summary() == by_path.summary()
    assert (files.origin, folders.origin, by_path.origin) == ("torchvision's files", "class folders", "class folders")
    assert files.classes == folders.classes == cifar100.CLASSES
    raw = pickle.loads((data_dir / "cifar-100-python" / "train").read_bytes())
    ours = {(int(y), x.numpy().tobytes()) for x, y in zip(files.train.pixels, files.train.labels, strict=True)}
    assert ours == {(y, x.tobytes()) for x, y in zip(raw["data"], raw["fine_labels"], strict=True)}
    assert torch.bincount(files.test.labels).tolist() == [COUNTS["test"]] * 100


@pytest.fixture
def copy(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of the class folders, whose files may be changed."""
    return Path(shutil.copytree(data_dir / "folders" / "cifar100", tmp_path / "cifar100", copy_function=os.link))


def _spoil(how: str, folder: Path) -> None:
    apple = folder / "train" / "apple"
    first = sorted(apple.iterdir())[0]
    if how == "a class missing":
        shutil.rmtree(folder / "train" / "aquarium_fish")
    elif how == "one image short":
        first.unlink()
    elif how == "64x64":
        first.unlink()
        Image.new("RGB", (64, 64)).save(first)
    elif how == "another set's names":
        apple.rename(folder / "train" / "n01443537")
    elif how == "no test images":
        shutil.rmtree(folder / "test")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("a class missing", r"cifar100.train is not all of CIFAR-100: the class folder aquarium_fish is missing"),
        ("one image short", r"train.apple holds 4 images, where CIFAR-100 has 5 in each class"),
        ("64x64", r"train.apple.\d+\.png is 64x64, where 32x32 is expected"),
        (
            "another set's names",
            r"cifar100.train is not CIFAR-100's: it holds the class n01443537, which CIFAR-100 lacks",
        ),
        ("no test images", r"cifar100 is not in the ImageNet layout: it has no folder val/"),
    ],
)
def test_a_folder_that_is_not_cifar100(how: str, sentence: str, copy: Path) -> None:
    _spoil(how, copy)
    for config in (dhm.Config(dataset="cifar100"), dhm.Config(dataset=str(copy))):
        with pytest.raises(dhm.InputError, match=sentence):
            load(config, copy.parent)


def test_the_published_images(tmp_path: Path) -> None:
    """Statistics every program normalises CIFAR-100 with, in the literature to three or four digits."""
    packed = SHARED / "data" / "cifar100"
    if not packed.is_dir():
        pytest.skip("CIFAR-100 is not at hand")
    (tmp_path / "cifar100").mkdir()
    for name in ("train-a", "train-b", "val"):  # tarfile takes four times as long for 60,000 files
        subprocess.run(["tar", "-xJf", packed / f"{name}.tar.xz", "-C", tmp_path / "cifar100"], check=True)
    data = load(dhm.Config(dataset="cifar100"), tmp_path)
    assert torch.bincount(data.train.labels).tolist() == [500] * 100
    assert torch.bincount(data.test.labels).tolist() == [100] * 100
    assert data.train.mean.tolist() == pytest.approx([0.5070752, 0.4865489, 0.4409178], abs=5e-7)
    assert data.train.std.tolist() == pytest.approx([0.2673343, 0.2564385, 0.2761505], abs=5e-7)
