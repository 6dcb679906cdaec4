"""Streamed images: order and augmentation by position, broken files named, folders of every accepted form."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import dhm
from dhm.analysis.features.gradients import held_out
from dhm.data import Streamed, load, load_test
from dhm.data.folders import open_image
from dhm.data.images import MEAN, STD
from dhm.data.streaming import transform
from dhm.training.step import Trainer


def config(folder: Path, **changes) -> dhm.Config:
    settings = {
        "arch": "imagenet_resnet", "options": {"depth": 10, "base": 4}, "dataset": str(folder), "image_size": 32,
        "augment": "scale", "batch_size": 6, "epochs": 1, "milestones": (), "lr": 0.01,
    }  # fmt: skip
    return dhm.Config.from_dict({**settings, **changes})


def batches(images: Streamed, **where) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(images.train_batches(6, 0, where.pop("epoch", 1), augment="scale", **where))


def assert_equal(a: list, b: list) -> None:
    assert len(a) == len(b)
    for (x, y), (u, v) in zip(a, b, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_batches_do_not_depend_on_workers_or_on_the_start(folder: Path) -> None:
    whole = batches(load(config(folder), workers=0).train)
    assert [len(y) for _, y in whole] == [6, 6, 6, 3]
    two = load(config(folder), workers=2).train
    assert_equal(whole, batches(two))
    assert_equal(whole[2:], batches(two, start=2))
    torch.manual_seed(5)  # nor on what was drawn before
    before = torch.get_rng_state()
    assert_equal(whole, batches(load(config(folder), workers=0).train))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(whole[0][0], batches(two, epoch=2)[0][0])


def test_ranks_share_every_batch(folder: Path) -> None:
    train = load(config(folder), workers=0).train
    whole, shares = batches(train), [batches(train, rank=rank, world=4) for rank in range(4)]
    for step, (x, y) in enumerate(whole):
        for rank in range(4):
            assert torch.equal(shares[rank][step][0], x[rank::4])
            assert torch.equal(shares[rank][step][1], y[rank::4])
    assert [len(share[3][1]) for share in shares] == [1, 1, 1, 0]
    test = load(config(folder), workers=0).test
    seen = [torch.cat([x for x, _ in test.test_batches(2, rank, 4)]) for rank in range(4)]
    assert sum(map(len, seen)) == len(test) == 6


def test_test_image_is_the_resized_centre(folder: Path) -> None:
    """Against Pillow's own resize and a cut by hand: 40 x 36 to a shorter side of 37 (32 * 256 / 224), then 32."""
    x, _ = next(load(config(folder)).test.test_batches(1))
    with Image.open(folder / "val" / "n01" / "v00.JPEG") as image:
        resized = image.convert("RGB").resize((41, 37), Image.Resampling.BILINEAR)
    array = np.asarray(resized)[2:34, 4:36]  # (37 - 32) / 2 rounds to even, (41 - 32) / 2 to 4
    expected = (torch.from_numpy(array.copy()).permute(2, 0, 1) / 255 - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(x[0], expected, rtol=0, atol=1e-6)


def test_held_out_images_are_seen_as_they_are_tested(folder: Path) -> None:
    """Shuffled, as Figure 4's page takes them: the very images of the test, with their labels."""
    test = load(config(folder), workers=0).test
    whole = {x.numpy().tobytes(): int(y) for batch in test.test_batches(4) for x, y in zip(*batch, strict=True)}
    ((images, labels),) = held_out(test, 6, 6)
    assert {x.numpy().tobytes(): int(y) for x, y in zip(images, labels, strict=True)} == whole
    assert labels.tolist() != sorted(labels.tolist())


def test_cancelled_scale_keeps_the_scale() -> None:
    """A ramp cut without scale augmentation keeps its slope; with it the slope varies."""
    ramp = Image.fromarray(np.tile(np.arange(0, 256, dtype=np.uint8)[None, :, None], (256, 1, 3)))

    def slopes(kind: str) -> torch.Tensor:
        torch.manual_seed(0)
        cuts = [transform(kind, 224)(ramp).float() for _ in range(12)]
        return torch.stack([(cut[0, 112, 150] - cut[0, 112, 70]).abs() / 80 for cut in cuts])

    assert slopes("fixed_scale").sub(1).abs().max() < 0.02
    assert slopes("scale").std() > 0.1
    assert isinstance(transform("scale", 224).transforms[0], v2.RandomResizedCrop)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def test_unreadable_training_images_are_left_out_named_and_counted(folder: Path, tmp_path: Path) -> None:
    truncate(folder / "train" / "n02" / "3.JPEG")
    (folder / "train" / "n01" / "5.JPEG").write_text("no image")
    with pytest.warns(UserWarning, match=r"left out of the training: .*n0\d/\d\.JPEG is no readable image"):
        record = dhm.fit(config(folder, epochs=2), runs_dir=tmp_path / "runs", accelerator="cpu", progress=False)
    assert [line["unreadable"] for line in record.metrics] == [2, 2]
    names = record.result["unreadable"]
    assert ["n01/5.JPEG" in names[0], "n02/3.JPEG" in names[1]] == [True, True]
    with pytest.warns(UserWarning, match="left out"):
        counts = [sum(len(y) for _, y in batches(load(config(folder), workers=w).train)) for w in (0, 2)]
    assert counts == [19, 19]


def test_an_epoch_without_a_readable_image_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a disk that breaks in the middle of a run, but still lists its files."""
    begin = Trainer.begin

    def broken(self: Trainer, epoch: int) -> None:
        for file in (folder / "train").rglob("*.JPEG"):
            file.write_bytes(b"")
        begin(self, epoch)

    monkeypatch.setattr(Trainer, "begin", broken)
    with pytest.warns(match="left out of the training"), pytest.raises(dhm.InputError, match="epoch 0: none of the"):
        dhm.fit(config(folder), runs_dir=tmp_path / "runs", accelerator="cpu", progress=False, workers=0)


def test_unreadable_test_image_stops_with_its_name(folder: Path, tmp_path: Path) -> None:
    good = (folder / "val" / "n02" / "v10.JPEG").read_bytes()
    truncate(folder / "val" / "n02" / "v10.JPEG")
    with pytest.raises(dhm.InputError, match=r"the test is stopped: .*n02/v10\.JPEG is no readable image"):
        dhm.fit(config(folder), runs_dir=tmp_path / "runs", accelerator="cpu", progress=False)
    (folder / "val" / "n02" / "v10.JPEG").write_bytes(good)  # mended, the run goes on
    assert dhm.fit(config(folder), runs_dir=tmp_path / "runs", accelerator="cpu", progress=False).result is not None


def test_missing_and_empty_classes_are_told(folder: Path) -> None:
    for file in (folder / "val" / "n03").iterdir():
        file.unlink()
    with pytest.raises(dhm.InputError, match=r"val/n03 holds no image"):
        load(config(folder))
    (folder / "val" / "n03").rmdir()
    with pytest.raises(dhm.InputError, match="class n03 is in train/ but not in val/"):
        load(config(folder))
    with pytest.raises(dhm.InputError, match="needs an image_size"):
        config(folder, image_size=None)


LISTS = {
    "val.txt": ["{stem}.JPEG {wnid}", "{stem}.JPEG {number}"],
    "synset_labels.txt": ["{wnid}"],
    "LOC_val_solution.csv": ["{stem},{wnid} 1 2 3 4"],
}


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in LISTS.items() for line in lines])
@pytest.mark.parametrize("inside", [True, False], ids=["in val", "beside val"])
def test_flat_validation_folder(folder: Path, name: str, line: str, inside: bool) -> None:
    labels = {}
    for i, file in enumerate(sorted((folder / "val").rglob("*.JPEG"), reverse=True)):
        labels[f"ILSVRC2012_val_{i:08}"] = file.parent.name
        file.rename(folder / "val" / f"ILSVRC2012_val_{i:08}.JPEG")
    for empty in ("n01", "n02", "n03"):
        (folder / "val" / empty).rmdir()
    with pytest.raises(
        dhm.InputError, match="val holds images outside class folders, and the list of their labels is missing"
    ):
        load(config(folder))
    lines = [line.format(stem=s, wnid=w, number=int(w[1:]) - 1) for s, w in labels.items()]
    header = ["ImageId,PredictionString"] if name.endswith("csv") else []
    (folder / ("val" if inside else ".") / name).write_text("\n".join(header + lines) + "\n")
    data = load(config(folder))
    assert data.test.labels.tolist() == [int(wnid[1:]) - 1 for wnid in labels.values()]
    for file in (folder / "train").rglob("*.JPEG"):  # to test a network, val/ alone is enough
        file.unlink()
    for split in ("n01", "n02", "n03"):
        (folder / "train" / split).rmdir()
    (folder / "train").rmdir()
    images, classes = load_test(config(folder))
    assert images.labels.tolist() == data.test.labels.tolist()
    assert len(classes) == 3


def test_lists_that_do_not_fit_are_told(folder: Path) -> None:
    for file in sorted((folder / "val").rglob("*.JPEG")):
        file.rename(folder / "val" / file.name)
    names = sorted(file.name for file in (folder / "val").glob("*.JPEG"))
    for content, sentence in (
        ("\n".join("1" for _ in names), "holds bare numbers"),
        ("\n".join(f"{name} n01" for name in names[1:]), f"has no label for {names[0]}"),
        ("\n".join(f"{name} 7" for name in names), "has the label 7, but there are 3 classes"),
    ):
        (folder / "val" / "val.txt").write_text(content)
        with pytest.raises(dhm.InputError, match=sentence):
            load(config(folder))


def test_wrong_number_of_classes_for_a_checkpoint_is_told(folder: Path) -> None:
    from dhm.training.evaluation import evaluate

    net = dhm.create_model("imagenet_resnet", num_classes=5, depth=10, base=4)
    with pytest.raises(dhm.InputError, match=r"the network has 5 classes, but .* has 3"):
        evaluate(net, config(folder), accelerator="cpu")


def test_embedded_set_streams_too() -> None:
    data = load(dhm.Config(augment="fixed_scale", image_size=28, classes=3, train_per_class=4))
    x, y = next(data.train.train_batches(8, 0, 0, augment="fixed_scale"))
    assert x.shape == (8, 3, 28, 28)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.max() < 3
    assert data.summary()["train_images"] == 12


def test_gray_and_palette_images_are_read_as_colour() -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 128).save(buffer, "PNG")
    assert open_image(io.BytesIO(buffer.getvalue())).mode == "RGB"  # type: ignore[arg-type]


def test_sixteen_bits_keep_their_shades_and_thirty_two_are_refused(tmp_path: Path) -> None:
    shades = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(shades).save(tmp_path / "grey.png")
    assert np.array_equal(np.asarray(open_image(str(tmp_path / "grey.png")))[..., 0], shades >> 8)
    Image.fromarray(shades.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(dhm.InputError, match="32 bits; save it with 8 or 16"):
        open_image(str(tmp_path / "float.tiff"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_set_of_which_nothing_can_be_read_is_told_before_training(folder: Path, split: str) -> None:
    files = sorted((folder / split).rglob("*.JPEG"))
    for file in files[:-1]:
        file.write_bytes(b"")
    load(config(folder))  # one can
    files[-1].write_bytes(b"")
    with pytest.raises(dhm.InputError, match=f"of {len(files)} images tried, none can be read: .*{files[0].name}"):
        load(config(folder))
