"""Data sets: what is embedded, what is chosen from a folder, what augmentation does to which image."""

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from PIL import Image

import dhm
from dhm import paths
from dhm.data import corruption, load, reid
from dhm.data.images import Images, channel_statistics, crop_and_flip
from dhm.data.sources import DATASETS
from dhm.randomness import generator, seed_of


def tiny_folder(root: Path, classes: int = 6, train: int = 5, val: int = 2, size: int = 10) -> Path:
    """An ImageNet-layout folder whose image i of class c is the flat colour (c, i, split)."""
    for split, count in (("train", train), ("val", val)):
        for c in range(classes):
            folder = root / split / f"class{c}"
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (size, size), (c, i, int(split == "val"))).save(folder / f"{i}.png")
    return root


def config(folder: Path, **changes) -> dhm.Config:
    return dhm.Config(dataset=str(folder), **changes)


def test_every_name_of_a_data_set_is_told() -> None:
    page, settings = (paths.root() / "data" / "README.md").read_text(), dhm.Config.__doc__ or ""
    for name in (*DATASETS, *reid.DATASETS):
        assert f"`{name}`" in page
        assert f'"{name}"' in settings


def test_embedded_arrays_have_the_sums_that_are_written_down() -> None:
    written = dict(re.findall(r"`(\w+)`.*?`([0-9a-f]{64})`", (paths.root() / "data" / "README.md").read_text()))
    with np.load(paths.embedded("fashion-mnist-mini.npz")) as arrays:
        sums = {name: hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in arrays.files}
    assert sums == written


def test_embedded_set_is_made_by_its_script(tmp_path: Path) -> None:
    """Where Debian's package lies, the script cuts the same arrays out of it again."""
    source = Path("/usr/share/datasets/fashion-mnist")
    if not source.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    spec = importlib.util.spec_from_file_location("make", paths.root() / "data" / "make_fashion_mnist_mini.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with np.load(paths.embedded("fashion-mnist-mini.npz")) as arrays:
        for name, array in module.cut(source).items():
            assert np.array_equal(array, arrays[name]), name


def test_embedded_set_is_balanced() -> None:
    data = load(dhm.Config())
    assert data.train.pixels.shape == (4000, 3, 28, 28)
    assert data.test.pixels.shape == (2000, 3, 28, 28)
    assert torch.bincount(data.train.labels).tolist() == [400] * 10
    assert torch.bincount(data.test.labels).tolist() == [200] * 10


def test_tiny_imagenet_as_it_is_unpacked(tmp_path: Path) -> None:
    """Images in train/<class>/images and val/images with val_annotations.txt; hidden files are no images."""
    plain, unpacked = tiny_folder(tmp_path / "plain"), tmp_path / "unpacked"
    lines = []
    (unpacked / "val" / "images").mkdir(parents=True)
    for file in sorted(plain.rglob("*.png")):
        _, split, name, image = file.relative_to(tmp_path).parts
        if split == "train":
            place = unpacked / "train" / name / "images" / image
            place.parent.mkdir(parents=True, exist_ok=True)
        else:
            place = unpacked / "val" / "images" / f"val_{len(lines):02}.png"
            lines.append(f"{place.name}\t{name}\t0\t0\t9\t9\n")
        file.rename(place)
    (unpacked / "val" / "val_annotations.txt").write_text("".join(lines))
    (unpacked / "train" / ".ipynb_checkpoints").mkdir()
    (unpacked / "train" / "class0" / "._0.png").write_text("left by another system")
    data = load(config(unpacked))
    assert data.classes == tuple(f"class{c}" for c in range(6))
    assert data.train.pixels[:, :, 0, 0].tolist() == [[c, i, 0] for c in range(6) for i in range(5)]
    assert data.test.pixels[:, :, 0, 0].tolist() == [[c, i, 1] for c in range(6) for i in range(2)]
    assert data.test.labels.tolist() == [c for c in range(6) for _ in range(2)]


def test_selection_from_a_folder(tmp_path: Path) -> None:
    """Three of six classes are every second one; two training images each; the rest joins the test images."""
    data = load(config(tiny_folder(tmp_path), classes=3, train_per_class=2, test_on="val+rest"))
    assert data.classes == ("class0", "class2", "class4")
    colours = data.train.pixels[:, :, 0, 0]
    assert colours.tolist() == [[c, i, 0] for c in (0, 2, 4) for i in (0, 1)]
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    tested = {tuple(colour) for colour in data.test.pixels[:, :, 0, 0].tolist()}
    assert tested == {(c, i, 1) for c in (0, 2, 4) for i in (0, 1)} | {(c, i, 0) for c in (0, 2, 4) for i in (2, 3, 4)}
    assert (data.test.pixels[:, 0, 0, 0] == 2 * data.test.labels).all()


def test_images_are_box_filtered_to_size(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, classes=2)
    checker = np.indices((16, 16)).sum(axis=0) % 2 * 200
    Image.fromarray(np.repeat(checker[..., None], 3, axis=2).astype(np.uint8)).save(folder / "train/class0/0.png")
    data = load(config(folder, image_size=8))
    assert data.train.pixels.shape[2:] == (8, 8)
    assert (data.train.pixels[0] == 100).all()


def test_real_jpegs(tmp_path: Path) -> None:
    archive = SHARED / "data" / "tiny-imagenet-100" / "val.tar.xz"
    if not archive.is_file():
        pytest.skip("Tiny ImageNet is not beside this clone")
    import tarfile

    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if m.isfile()][:300]
        tar.extractall(tmp_path / "x", members=members, filter="data")
    (tmp_path / "x" / "train").symlink_to("val")
    data = load(config(tmp_path / "x", image_size=32))
    first = min((tmp_path / "x" / "val").rglob("*.JPEG"))
    expected = np.asarray(Image.open(first).convert("RGB")).reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(data.test.pixels[0].permute(1, 2, 0).numpy() - expected).max() <= 1


def test_statistics_are_those_of_the_pixels() -> None:
    pixels = torch.randint(0, 256, (50, 3, 9, 9), dtype=torch.uint8)
    mean, std = channel_statistics(pixels)
    scaled = pixels.double() / 255
    torch.testing.assert_close(mean, scaled.mean(dim=(0, 2, 3)).float())
    torch.testing.assert_close(std, scaled.std(dim=(0, 2, 3), unbiased=False).float())


def test_crops_and_flips_are_those_of_a_loop() -> None:
    """Each image against slicing a padded copy at the offsets the same generator draws."""
    pixels = torch.randint(1, 256, (64, 3, 6, 5), dtype=torch.uint8)
    ours = crop_and_flip(pixels, generator(1, 2, 3))
    rng = generator(1, 2, 3)
    top, left = torch.randint(0, 9, (2, 64), generator=rng)
    mirrored = torch.randint(0, 2, (64, 1), generator=rng)
    for i in range(64):
        padded = torch.zeros(3, 14, 13, dtype=torch.uint8)
        padded[:, 4:10, 4:9] = pixels[i]
        expected = padded[:, top[i] : top[i] + 6, left[i] : left[i] + 5]
        assert torch.equal(ours[i], expected.flip(2) if mirrored[i] else expected)
    assert len(set(top.tolist())) == 9
    assert 0 < mirrored.sum() < 64


def test_an_epoch_shows_every_image_once_and_the_order_depends_on_seed_and_epoch_alone() -> None:
    data = load(dhm.Config(image_size=8)).train
    plain = data.normalise(data.pixels)

    def order(seed: int, epoch: int, start: int = 0) -> torch.Tensor:
        batches = data.train_batches(300, seed, epoch, augment="none", start=start)
        return torch.cat([x.flatten(1) for x, _ in batches])

    first = order(0, 0)
    assert torch.equal(first.sort(dim=0).values, plain.flatten(1).sort(dim=0).values)
    assert torch.equal(first, order(0, 0))
    assert not torch.equal(first, order(0, 1))
    assert not torch.equal(first, order(1, 0))
    assert torch.equal(first[600:], order(0, 0, start=2))


@pytest.mark.parametrize("kind", [np.int64, np.int32, torch.tensor])
def test_a_seed_is_a_number_whatever_holds_it(kind: Callable) -> None:
    """In a loop over `np.arange`, say; how such a number is written depends on numpy's version."""
    for position in ((3,), (0, 7), (5, 0, 2**31 - 1)):
        assert seed_of(*map(kind, position)) == seed_of(*position)


def test_augmented_batches_continue_after_a_resume() -> None:
    data = load(dhm.Config(image_size=8)).train
    whole = list(data.train_batches(500, 3, 4, augment="crop"))
    rest = list(data.train_batches(500, 3, 4, augment="crop", start=5))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole[5:], rest, strict=True))


def test_ranks_share_each_batch_without_overlap() -> None:
    data = load(dhm.Config(image_size=8))
    (whole, labels), *_ = data.train.train_batches(128, 0, 0, augment="crop")
    parts = [next(data.train.train_batches(128, 0, 0, augment="crop", rank=rank, world=2)) for rank in (0, 1)]
    assert torch.equal(torch.stack([parts[0][0], parts[1][0]], dim=1).flatten(0, 1), whole)
    assert torch.equal(torch.stack([parts[0][1], parts[1][1]], dim=1).flatten(), labels)
    tested = [torch.cat([y for _, y in data.test.test_batches(100, rank, 3)]) for rank in range(3)]
    assert sum(map(len, tested)) == 2000
    assert torch.equal(tested[1], data.test.labels[1::3])


def test_normalised_training_images_have_zero_mean_and_unit_deviation() -> None:
    data = load(dhm.Config()).train
    x = data.normalise(data.pixels)
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_corruption_redraws_exactly_its_share(share: float) -> None:
    labels = torch.full((10_000,), 3)
    redrawn = corruption.redraw(labels, share, 20, seed=0)
    changed = (redrawn != labels).sum().item()
    assert changed == pytest.approx(share * 10_000 * 19 / 20, abs=4 * (share * 10_000 * 0.05 * 0.95) ** 0.5)
    assert changed <= share * 10_000
    assert torch.equal(redrawn, corruption.redraw(labels, share, 20, seed=0))
    assert not torch.equal(redrawn, corruption.redraw(labels, share, 20, seed=1))


def test_corruption_never_touches_the_test_labels_and_is_the_same_for_every_method() -> None:
    clean = load(dhm.Config(image_size=8))
    noisy = [load(dhm.Config(image_size=8, label_noise=0.5, method=method)) for method in ("baseline", "dhm")]
    assert torch.equal(noisy[0].test.labels, clean.test.labels)
    assert torch.equal(noisy[0].train.labels, noisy[1].train.labels)
    changed = (noisy[0].train.labels != clean.train.labels).float().mean().item()
    assert noisy[0].summary()["wrong_labels"] == pytest.approx(changed)
    assert 0.42 < changed < 0.48


def break_folder(how: str, folder: Path) -> None:
    if how == "no val":
        (folder / "val").rename(folder / "test")
    elif how == "class missing in val":
        (folder / "val" / "class3").rename(folder / "hidden")
    elif how == "class missing in train":
        (folder / "train" / "class3").rename(folder / "hidden")
    elif how == "empty class":
        for file in (folder / "train" / "class2").iterdir():
            file.unlink()
    elif how == "not an image":
        (folder / "train" / "class1" / "0.png").write_text("no image")
    elif how == "truncated":
        Image.effect_noise((64, 64), 90).convert("RGB").save(folder / "big.png")
        (folder / "train" / "class1" / "0.png").write_bytes((folder / "big.png").read_bytes()[:2000])
    elif how == "sizes differ":
        Image.new("RGB", (5, 7)).save(folder / "train" / "class1" / "0.png")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("no val", "is not in the ImageNet layout: it has no folder val/"),
        ("class missing in val", r"class class3 is in train/ but not in val/"),
        ("class missing in train", r"class class3 is in val/ but not in train/"),
        ("empty class", r"class2 holds no image"),
        ("not an image", r"class1.0\.png is no readable image"),
        ("truncated", r"class1.0\.png is no readable image"),
        ("sizes differ", r"class1.0\.png differs in size .* choose an image_size"),
    ],
)
def test_a_broken_folder_is_told_in_a_sentence(how: str, sentence: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "set")
    break_folder(how, folder)
    with pytest.raises(dhm.InputError, match=sentence):
        load(config(folder))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dataset": "imagenot"}, "there is no data set 'imagenot': it is none of fashion-mnist-mini, cifar100"),
        ({"dataset": "cifar100"}, "CIFAR-100 is missing or incomplete"),
        ({"classes": 11}, "classes is 11, but the data set has 10"),
        ({"train_per_class": 500}, "train_per_class is 500, but a class has only 400"),
    ],
)
def test_what_cannot_be_had_is_told_in_a_sentence(changes: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        load(dhm.Config(**changes), tmp_path)


def test_nothing_is_downloaded_unasked(tmp_path: Path) -> None:
    with pytest.raises(dhm.InputError, match="ask for the download"):
        load(dhm.Config(dataset="cifar100"), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_spread_of_a_set_in_order_of_classes_has_all_of_them() -> None:
    labels = torch.arange(10).repeat_interleave(7)
    images = Images(torch.arange(70)[:, None, None, None].byte(), labels, torch.zeros(1), torch.ones(1))
    assert images.spread(10).labels.tolist() == [*range(10)]
    assert images.spread(4).pixels.flatten().tolist() == [0, 17, 35, 52]
    assert images.spread(99).labels.tolist() == labels.tolist()
