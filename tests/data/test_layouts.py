"""Folders as they come, by a seeded generator: each image knows by its colour which class it is of."""

import os
import random
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dhm
from dhm.data import load, load_test
from dhm.data.folders import decode, list_images, list_validation
from dhm.data.labels import flat_labels
from dhm.data.reid import read_layout

WORDS = [
    "cat",
    "dog",
    "golden retriever",
    "naïve",
    "日本",
    "n01440764",
    "a,b",
    "type 1",
    "it's",
    'so "called"',
    "Ça va",
]
KINDS = ["png", "PNG", "bmp", "tif", "TIFF", "ppm", "tga", "pnm", "pcx"]
JUNK = [".DS_Store", "._0.png", "Thumbs.db", "notes.txt", "boxes.csv"]
STRANGE = ["model.pth", "clip.mp4", "README", "x.heic"]


def paint(file: Path, label: int, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (label, number, 7)).save(file)


def names_of(rng: random.Random, count: int) -> list[str]:
    """Names of class folders: numbers, numbers with zeros before them, or words, one of them in bytes of Latin-1."""
    style = rng.choice(["numbers", "padded", "words"])
    if style == "words":
        return [*rng.sample(WORDS, count - 1), os.fsdecode(b"caf\xe9")]
    return [f"{i:03}" if style == "padded" else str(i) for i in range(count)]


def litter(folder: Path, rng: random.Random) -> int:
    """Files that are no images; the number of those worth a word."""
    for name in rng.sample(JUNK, rng.randrange(3)):
        (folder / name).write_bytes(b"no image")
    strange = rng.sample(STRANGE, rng.randrange(2))
    for name in strange:
        (folder / name).write_bytes(b"no image")
    if rng.random() < 0.3:
        paint(folder / rng.choice([".thumbs", "@eaDir", "__MACOSX"]) / "0.png", 99, 99)
    return len(strange)


def fill(folder: Path, label: int, rng: random.Random, prefix: str = "") -> int:
    """A class of 1 to 4 images, some deeper or links; the number of files left out."""
    left = 0
    for number in range(rng.randint(1, 4)):
        name = prefix + rng.choice(["{}", "img {}", "ü{}", "a.b{}", "{}(1)"]).format(number)
        place = folder / rng.choice([".", ".", "deep", "deep/er"]) if not prefix else folder
        file = place / f"{name}.{rng.choice(KINDS)}"
        paint(file, label, number)
        if rng.random() < 0.2 and not prefix:
            file.rename(folder.parents[2] / f"{folder.parent.name}-{label}-{number}{file.suffix}")
            file.symlink_to(folder.parents[2] / f"{folder.parent.name}-{label}-{number}{file.suffix}")
        elif rng.random() < 0.2:
            file.rename(os.fsdecode(os.fsencode(file.with_suffix("")) + b"\xe9" + file.suffix.encode()))
    left += litter(folder, rng)
    return left


def labels_of(listed: list[tuple[str, int]]) -> None:
    """The labels that were listed are those that are painted."""
    pixels = decode([file for file, _ in listed])
    assert pixels[:, 0, 0, 0].tolist() == [label for _, label in listed]
    assert (pixels[:, 2] == 7).all()


def images_on_disk(folder: Path) -> int:
    hidden = {".thumbs", "@eaDir", "__MACOSX"}
    return sum(
        name.rpartition(".")[2] in KINDS and not name.startswith(".")
        for where, _, names in os.walk(folder) if not hidden & set(Path(where).parts) for name in names
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_class_folders(seed: int, tmp_path: Path) -> None:
    rng, left = random.Random(seed), 0
    names, root = names_of(rng, rng.randint(2, 12 if seed % 2 else 5)), tmp_path / "a" / "set"
    for split in ("train", "val"):
        for label, name in enumerate(sorted(names)):  # by words, as torchvision's ImageFolder
            left += fill(root / split / name, label, rng)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        classes, splits = list_images(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load(dhm.Config(dataset=str(root), augment="scale", image_size=8)).summary()["train_checksum"] > 0
    assert classes == sorted(names)
    for split, listed in splits.items():
        labels_of(listed)
        assert len(listed) == images_on_disk(root / split)
    assert sum(int(re.search(r"left out (\d+) files", str(one.message))[1]) for one in told) == left


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("delimiter", ["\t", ",", ";", " "])
@pytest.mark.parametrize("seed", range(3))
def test_lists(seed: int, delimiter: str, encoding: str, newline: str, tmp_path: Path) -> None:
    """Shuffled, with and without header, quotation marks, extensions and numbers in place of classes."""
    rng = random.Random(f"{seed}{delimiter}{encoding}{newline}")
    names = sorted(rng.sample([word for word in WORDS if encoding != "latin-1" or word.isascii()], 4))
    rows, root = [], tmp_path / "set"
    for label, name in enumerate(names):
        paint(root / "train" / name / "0.png", label, 0)
        for number in range(3):
            stem = f"{label}-{number}" + rng.choice(["", " copy", ", x", " (2)", "é"])
            paint(root / "val" / f"{stem}.{rng.choice(KINDS)}", label, number)
            rows.append((stem, label))
    files = {file.stem: file for file in (root / "val").iterdir()}
    if encoding == "latin-1":  # names of files are in the bytes of the list
        for file in files.values():
            file.rename(os.fsdecode(os.fsencode(file.parent) + b"/" + file.name.encode("latin-1")))
    for twin in (rows[0][0], rows[1][0]):  # images that differ in their extension alone; 1.png and 1.jpg
        paint(root / "val" / f"{twin}.gif".replace("é", os.fsdecode(b"\xe9") if encoding == "latin-1" else "é"), 3, 9)
    twins = {rows[0][0], rows[1][0]}
    lines = [["absent.png", "nobody"]]
    for stem, label in [*rows, *((twin, 3) for twin in twins)]:
        given = files[stem].name if label != 3 or stem not in twins else f"{stem}.gif"
        if stem not in twins and rng.random() < 0.3:
            given = rng.choice([stem, f"{stem}.JPEG", f"val/{given}"])
        lines.append([given, names[label] if rng.random() < 0.7 else str(label)])
    rng.shuffle(lines)
    quote = rng.choice(["always", "never"])
    header = [f"file{delimiter}label"] * rng.randrange(2)

    def field(text: str) -> str:
        doubled = text.replace('"', '""')
        return f'"{doubled}"' if quote == "always" else text

    extra = delimiter + delimiter.join("0185") if delimiter != " " else ""
    text = newline.join([*header, *(delimiter.join(map(field, line)) + extra for line in lines)]) + newline
    (root / rng.choice(["val/val.txt", "val_labels.txt"])).write_bytes(text.encode(encoding))
    classes, splits = list_images(root)
    assert classes == names
    labels_of(splits["val"])
    assert len(splits["val"]) == 14


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("1.png cat\n1.jpg dog\n", r"has no label for 2\.png"),
        ("1.png cat\n1.png dog\n1.jpg dog\n2.png dog", r"gives 1\.png two labels, cat and dog"),
        ("1 cat\n2 dog", r"has no label for 1\.jpg"),
        ("1.png cat\n1.jpg dog\n2.png ²\n", "class ² is in val/ but not in train/"),
        ("1.png cat\n1.jpg dog\n2.png 2\n", "the label 2, but there are 2 classes, counted from 0"),
        ("0\n1\n1\n", "bare numbers, whose order"),
        ("", r"has no label for 1\.jpg"),
        ("1.png,cat\n\0,dog\n", r"has no label for 1\.jpg"),
    ],
)
def test_lists_that_contradict_are_told(content: str, sentence: str, tmp_path: Path) -> None:
    for name in ("train/cat/0.png", "train/dog/0.png", "val/1.png", "val/1.jpg", "val/2.png"):
        paint(tmp_path / name, 0, 0)
    (tmp_path / "val" / "val.txt").write_text(content)
    with pytest.raises(dhm.InputError, match=sentence):
        list_images(tmp_path)


@pytest.mark.parametrize("flat", [False, True])
def test_numbers_without_train_are_numbers(flat: bool, tmp_path: Path) -> None:
    """Of 12 classes the third is 2, in the order of words it would be 10; a network counts its own by number."""
    for number in range(12):
        paint(tmp_path / "val" / (f"x{number}.png" if flat else f"{number}/x.png"), number, 0)
    if flat:
        lines = [f"x{number}.png {number}" for number in range(12)]
        (tmp_path / "val" / "val.txt").write_text("\n".join(lines))
    config = dhm.Config(dataset=str(tmp_path), augment="scale", image_size=8)
    images, classes = load_test(config, numbered=True)
    assert classes == tuple(map(str, range(12)))
    pixels = torch.cat([x for x, _ in images.test_batches(100)])
    assert (pixels[:, 0, 0, 0] * images.std[0] + images.mean[0]).mul(255).round().tolist() == images.labels.tolist()
    if not flat:
        assert list_validation(tmp_path, numbered=False)[0] == sorted(map(str, range(12)))
        with pytest.raises(dhm.InputError, match="say by numbered=True"):
            load_test(config)
        os.rename(tmp_path / "val" / "0", tmp_path / "val" / "12")
        with pytest.raises(dhm.InputError, match=r"numbers its 12 classes 1 to 12, so which class .* cannot be told"):
            load_test(config, numbered=True)


def test_a_name_of_another_encoding_has_a_checksum(tmp_path: Path) -> None:
    """And names in UTF-8 the one they always had: 3 images of two classes, CRC-32 by hand."""
    import zlib

    for name in (b"train/a/\xc3\xa9.png", b"train/b/\xe9.png", b"val/a/0.png", b"val/b/0.png"):
        paint(tmp_path / os.fsdecode(name), 0, 0)
    train = load(dhm.Config(dataset=str(tmp_path), augment="scale", image_size=8)).train
    expected = zlib.crc32(np.array([0, 1]).tobytes())
    assert train.checksum == zlib.crc32(b"b/\xe9.png", zlib.crc32(b"a/\xc3\xa9.png", expected))


def test_a_link_upwards_ends(tmp_path: Path) -> None:
    for name in ("train/a/0.png", "val/a/0.png"):
        paint(tmp_path / name, 0, 0)
    (tmp_path / "train" / "a" / "again").symlink_to("..")
    with pytest.raises(dhm.InputError, match="is a link to a folder it lies in"):
        list_images(tmp_path)


def test_folders_named_like_images_are_folders(tmp_path: Path) -> None:
    for name in ("train/a/scan.png/0.png", "val/a/0.png"):
        paint(tmp_path / name, 0, 0)
    labels_of(list_images(tmp_path)[1]["train"])


def test_hidden_files_of_a_reid_set(tmp_path: Path) -> None:
    files = ["bounding_box_train/0002_c1s1_0.jpg", "query/0001_c1s1_0.png", "bounding_box_test/0001_c2s1_0.pnm"]
    for file in files:
        paint(tmp_path / file, 0, 0)
        litter(tmp_path / Path(file).parent, random.Random(file))
        (tmp_path / file).with_name("._" + Path(file).name).write_bytes(b"\0\5\x16\7")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {split: len(there.items) for split, there in read_layout(tmp_path).items()} == {
            "train": 1, "query": 1, "gallery": 1,
        }  # fmt: skip
    paint(tmp_path / "query" / "99999999999999999999_c1s1_0.png", 0, 0)
    with pytest.raises(dhm.InputError, match="identity and camera cannot be read"):
        read_layout(tmp_path)


def small(folder: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        for split in ("train", "val"):
            paint(folder / split / name / "0.png", label, 0)


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        (lambda place: os.mkfifo(place / "pipe.png"), r"pipe\.png is no file, nor a link to one"),
        (lambda place: (place / "gone.png").symlink_to("nowhere.png"), r"gone\.png is no file, nor a link to one"),
        (lambda place: (place / "own.png").symlink_to("own.png"), "cat cannot be listed: .*own.png"),
        (lambda place: (place.parent / "own").symlink_to("own"), "train cannot be listed: .*own"),
        (lambda place: place.rename(place.parent / "Cat"),
         "class Cat is in train/ but not in val/, where 'cat' is another name than 'Cat'"),
    ],
)  # fmt: skip
def test_what_is_no_image_or_class_is_told_and_not_waited_for(there, sentence: str, tmp_path: Path) -> None:
    small(tmp_path)
    there(tmp_path / "train" / "cat")
    with pytest.raises(dhm.InputError, match=sentence):
        list_images(tmp_path)


def test_accents_written_in_two_ways_are_two_names(tmp_path: Path) -> None:
    small(tmp_path)
    paint(tmp_path / "train" / "caf\u00e9" / "0.png", 2, 0)
    paint(tmp_path / "val" / "cafe\u0301" / "0.png", 2, 0)
    with pytest.raises(dhm.InputError, match=r"where 'caf\\xe9' is another name than 'cafe\\u0301'"):
        list_images(tmp_path)


def test_images_outside_class_folders_are_counted(tmp_path: Path) -> None:
    small(tmp_path)
    paint(tmp_path / "train" / "loose.png", 9, 9)
    with pytest.warns(UserWarning, match="train: left out 1 images outside the class folders"):
        assert len(list_images(tmp_path)[1]["train"]) == 2


@pytest.mark.parametrize("delimiter", [",", ";", " "])
def test_classes_in_quotation_marks_hold_what_sets_fields_apart(delimiter: str, tmp_path: Path) -> None:
    classes = [f"tench{delimiter}Tinca tinca", "x"]
    (tmp_path / "val").mkdir()
    (tmp_path / "val.txt").write_text("".join(f'{i}.png{delimiter}"{name}"\n' for i, name in enumerate(classes)))
    for known in (classes, []):  # as train/ gives them, or unknown
        assert flat_labels(tmp_path, ["0.png", "1.png"], known) == classes
