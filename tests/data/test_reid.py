"""Re-identification: sets on disk, drawn pedestrians, augmentation, the recipe of section 4.2."""

import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_run
from PIL import Image

import dhm
from dhm.analysis.evidence import results, shelf
from dhm.data import load, pedestrians, reid
from dhm.data.images import crop_and_flip
from dhm.data.pedestrians import Shot
from dhm.metrics.retrieval import SingleQuery
from dhm.paper import recipes
from dhm.paper.presets import settings
from dhm.plots.retrieval import searches
from dhm.randomness import generator
from dhm.records import checkpoints
from dhm.records.weights import pretrained, start_from
from dhm.training.estimate import estimate
from dhm.training.evaluation import evaluate
from dhm.training.step import Trainer, optimizer_of
from dhm.zoo import network_of

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg", "0007_c3s3_077419_03.jpg",
                           "0007_c1s3_000001_01.jpg", "-1_c1s1_000401_03.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "0003_c2s1_000000_00.jpg"],
    "bounding_box_test": ["0001_c2s1_000301_00.jpg", "0003_c5s1_000000_00.jpg", "0001_c1s1_001051_03.jpg",
                          "0000_c1s1_000151_01.jpg", "-1_c6s1_000401_03.jpg"],
}  # fmt: skip
DUKE = {
    "bounding_box_train": ["0005_c2_f0046985.jpg", "0005_c5_f0051341.jpg"],
    "query": ["0006_c1_f0000001.jpg"],
    "bounding_box_test": ["0006_c8_f0000002.jpg"],
}


def make(folder: Path, layout: dict[str, list[str]]) -> Path:
    """Images of a grey of their own, so that each can be told from the others; Thumbs.db as in the published set."""
    for inside, names in layout.items():
        (folder / inside).mkdir(parents=True)
        (folder / inside / "Thumbs.db").write_bytes(b"")
        for i, name in enumerate(names):
            Image.new("RGB", (64, 128), (10 * i, 10 * i, 10 * i)).save(folder / inside / name, quality=100)
    return folder


def config(dataset: str | Path, **changes) -> dhm.Config:
    return dhm.Config.from_dict({"arch": "mobilenet", "options": {"width": 0.25}, "dataset": str(dataset), **changes})


def test_market_names_and_junk(tmp_path: Path) -> None:
    splits = reid.read_layout(make(tmp_path, MARKET))
    assert splits["train"].identities.tolist() == [2, 2, 7, 7]
    assert splits["train"].cameras.tolist() == [1, 2, 1, 3]  # files in sorted order
    assert splits["query"].identities.tolist() == [1, 3]
    assert splits["gallery"].identities.tolist() == [0, 1, 1, 3]  # distractor kept, junk dropped
    assert splits["gallery"].cameras.tolist() == [1, 1, 2, 5]


def test_duke_names(tmp_path: Path) -> None:
    splits = reid.read_layout(make(tmp_path, DUKE))
    assert [splits[name].cameras.tolist() for name in ("train", "query", "gallery")] == [[2, 5], [1], [8]]
    assert splits["gallery"].identities.tolist() == [6]


def test_loaded_by_path_with_labels_and_sizes(tmp_path: Path) -> None:
    data = load(config(make(tmp_path, MARKET), image_size=32))
    assert data.classes == ("0002", "0007")
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.train.pixels.shape == (4, 3, 36, 18)  # 1.125 times 32 x 16
    assert data.test.pixels.shape == (6, 3, 32, 16)
    images, _ = next(data.train.train_batches(4, 0, 0, augment="crop"))
    assert images.shape == (4, 3, 32, 16)
    greys = data.test.pixels.float().mean(dim=(1, 2, 3)).round().tolist()
    assert greys == [0, 10, 30, 20, 0, 10]  # queries, then the gallery, in the sorted order of their files
    assert data.test.task is not None
    assert data.test.task.query.identities.tolist() == [1, 3]
    assert data.summary()["image_size"] == 32
    plain = load(config(tmp_path, image_size=32, augment="none"))
    assert plain.train.pixels.shape == (4, 3, 32, 16)


def test_default_size_is_that_of_the_paper(tmp_path: Path) -> None:
    data = load(config(make(tmp_path, MARKET)))
    assert data.train.pixels.shape[-2:] == (288, 144)
    assert data.test.pixels.shape[-2:] == (256, 128)


def test_departures_from_the_published_counts_are_told(tmp_path: Path) -> None:
    make(tmp_path / "Market-1501-v15.09.15", MARKET)
    with pytest.warns(UserWarning, match="4 train images instead of 12,936; 2 query images instead of 3,368; 4 gallery "
                      "images instead of 15,913; 2 identities in bounding_box_train instead of 751; 2 identities in "
                      "query instead of 750"):  # fmt: skip
        load(config("market1501", image_size=32), tmp_path)


def test_a_whole_copy_is_passed_over_in_silence() -> None:
    counts = {"train": (12936, 751), "query": (3368, 750), "gallery": (15913, 750)}
    splits = {
        split: reid.Split([""] * images, torch.arange(images) % identities, torch.ones(images))
        for split, (images, identities) in counts.items()
    }
    assert reid.differences("market1501", splits) == []
    assert reid.differences("dukemtmc-reid", splits)[0] == "12,936 train images instead of 16,522"


def test_duke_comes_with_its_notice(tmp_path: Path) -> None:
    with pytest.raises(dhm.InputError, match=r"DukeMTMC-reID is not in .* withdrawn .* never downloaded"):
        load(config("dukemtmc-reid"), tmp_path, download=True)
    make(tmp_path / "DukeMTMC-reID", DUKE)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load(config("dukemtmc-reid", image_size=32), tmp_path)
    assert any("withdrawn" in str(warning.message) for warning in told)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: (f / "query").rename(f / "queries"), "not in the layout of Market-1501 .* it has no folder query$"),
        (lambda f: [p.unlink() for p in (f / "query").iterdir()], "query holds no image"),
        (lambda f: (f / "query" / "0001_c1s1_001051_00.jpg").rename(f / "query" / "person1.jpg"),
         r"query/person1\.jpg: identity and camera cannot be read from this name"),
        (lambda f: (f / "bounding_box_test" / "0003_c5s1_000000_00.jpg").unlink(),
         r"query/0003_c2s1_000000_00\.jpg: this query has no match"),
        (lambda f: (f / "query" / "0003_c2s1_000000_00.jpg").rename(f / "query" / "0000_c2s1_000000_00.jpg"),
         r"query/0000_c2s1_000000_00\.jpg: this query has no match"),
        (lambda f: (f / "bounding_box_train" / "0002_c1s1_000451_03.jpg").rename(
            f / "bounding_box_train" / "0000_c1s1_000451_03.jpg"), r"0000_c1s1_000451_03\.jpg: identity 0"),
        (lambda f: (f / "query" / "0001_c1s1_001051_00.jpg").write_bytes(b"no image"),
         r"0001_c1s1_001051_00\.jpg is no readable image"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_told_in_one_sentence(tmp_path: Path, change, sentence: str) -> None:
    change(make(tmp_path, MARKET))
    with pytest.raises(dhm.InputError, match=sentence) as told:
        load(config(tmp_path, image_size=32))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_size": 33}, "must be even, not 33"),
        ({"label_noise": 0.2}, "label_noise must be 0, not 0.2"),
        ({"test_on": "val+rest", "train_per_class": 1}, "test_on must be 'val', not 'val\\+rest'"),
        ({"classes": 41}, "classes is 41, but the data set has 40"),
    ],
)
def test_settings_without_meaning_here_are_refused(changes: dict, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        load(config("pedestrians", **changes))


def test_classes_and_images_of_each_can_be_chosen() -> None:
    data = load(config("pedestrians", image_size=32, classes=8, train_per_class=6))
    assert data.classes == ("0001", "0006", "0011", "0016", "0021", "0026", "0031", "0036")
    assert data.train.labels.bincount().tolist() == [6] * 8


def test_crop_of_a_rectangle_reaches_every_place() -> None:
    """Pixels that know where they are: every offset occurs, none is out of range, half are mirrored."""
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(7), indexing="ij")
    one = torch.stack([rows, columns, torch.zeros_like(rows)]).byte()
    cut = crop_and_flip(one.expand(4000, -1, -1, -1), generator(0), (6, 5))
    assert cut.shape == (4000, 3, 6, 5)
    mirrored = cut[:, 1, 0, 0] > cut[:, 1, 0, -1]
    assert 0.45 < mirrored.float().mean() < 0.55
    straight = torch.where(mirrored[:, None, None, None], cut.flip(3), cut).int()
    offsets = straight[:, :2, 0, 0]
    assert sorted(offsets.unique(dim=0).tolist()) == [[y, x] for y in range(4) for x in range(3)]
    for image, (y, x) in zip(straight[:50], offsets[:50].tolist(), strict=True):
        assert torch.equal(image, one[:, y : y + 6, x : x + 5].int())


def test_drawn_set_has_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written out and read again it is the set in memory: the same people on the same cameras, junk left out."""
    monkeypatch.setattr(pedestrians, "TRAIN_PEOPLE", 7)
    monkeypatch.setattr(pedestrians, "TEST_PEOPLE", 5)
    splits = reid.read_layout(pedestrians.write(tmp_path))
    drawn = load(config("pedestrians", image_size=32))
    again = load(config(tmp_path, image_size=32))
    assert len(splits["query"].items) == 5 * pedestrians.CAMERAS
    assert 0 in splits["gallery"].identities
    assert -1 not in splits["gallery"].identities
    assert len(list((tmp_path / "bounding_box_test").glob("-1_*"))) == pedestrians.JUNK_SHOTS
    assert drawn.test.task is not None
    assert again.test.task is not None
    assert drawn.classes == again.classes
    for mine, theirs in (
        (drawn.test.task.query, again.test.task.query),
        (drawn.test.task.gallery, again.test.task.gallery),
    ):
        seen = [sorted(zip(s.identities.tolist(), s.cameras.tolist(), strict=True)) for s in (mine, theirs)]
        assert seen[0] == seen[1]
    assert not set(splits["train"].identities.tolist()) & set(splits["query"].identities.tolist())


def test_drawing_is_a_function_of_the_seed() -> None:
    shot = Shot(3, 2, 1)
    code = "from dhm.data.pedestrians import *; import zlib; print(zlib.crc32(draw(Shot(3, 2, 1), 5).tobytes()))"
    other = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert zlib.crc32(pedestrians.draw(shot, 5).tobytes()) == other
    assert pedestrians.draw(shot, 5).tobytes() != pedestrians.draw(shot, 6).tobytes()
    takes = {pedestrians.draw(Shot(3, camera, take)).tobytes() for camera in (1, 2) for take in range(3)}
    assert len(takes) == 6


def test_raw_pixels_do_not_find_people_again() -> None:
    """Cameras confound colour: the nearest image by pixels is of the camera, hardly ever of the person."""
    data = load(config("pedestrians"))
    assert data.test.task is not None
    figures = data.test.task.rank(data.test.pixels.flatten(1).float())["euclidean"].figures()
    assert figures["rank1"] < 5
    assert figures["mAP"] < 5


def test_clothes_can_be_seen_on_every_camera() -> None:
    """The same person differs less between takes than from another person on the same camera: there is something to
    learn."""

    def pixels(who: int, take: int) -> np.ndarray:
        return np.asarray(pedestrians.draw(Shot(who, 3, take), size=(36, 18)), dtype=float)

    own = np.mean([abs(pixels(who, 0) - pixels(who, 1)).mean() for who in range(1, 16)])
    other = np.mean([abs(pixels(who, 0) - pixels(who + 1, 1)).mean() for who in range(1, 16)])
    assert own < other


WARM = {
    "arch": "imagenet_resnet", "options": {"depth": 10, "base": 8}, "dataset": "pedestrians", "image_size": 64,
    "classes": 4, "optimizer": "amsgrad", "lr": 3e-3, "weight_decay": 5e-4, "label_smoothing": 0.1,
    "batch_size": 16, "milestones": (2,),
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What torchvision gives: a bare state dict of the plain network with its own classifier of 1000 classes."""
    torch.manual_seed(11)
    net = dhm.create_model("imagenet_resnet", 1000, "none", depth=10, base=8).backbone
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    file = tmp_path_factory.mktemp("weights") / "resnet10.pth"
    torch.save(net.state_dict(), file)
    return file


def test_held_layers_keep_every_bit_and_move_afterwards(weights: Path, tmp_path: Path) -> None:
    def trained(epochs: int) -> dict[str, torch.Tensor]:
        run = dhm.Config(**WARM, weights=str(weights), frozen_epochs=2, epochs=epochs)
        record = dhm.fit(run, runs_dir=tmp_path, accelerator="cpu", progress=False)
        return checkpoints.load(record.folder / "last.pt")["net"]

    given = torch.load(weights, weights_only=True)
    held = [name for name in given if not name.startswith("fc.")]
    assert any("running_mean" in name for name in held)
    assert any("num_batches_tracked" in name for name in held)
    after, later = trained(2), trained(3)
    for name in held:
        assert torch.equal(after[f"backbone.{name}"], given[name]), name
    still = [name for name in held if torch.equal(later[f"backbone.{name}"], given[name])]
    assert still == []
    torch.manual_seed(0)
    fresh = network_of(dhm.Config(**WARM), 4).state_dict()
    new = [name for name in fresh if name.startswith(("backbone.fc.", "branches."))]
    assert [name for name in new if torch.equal(after[name], fresh[name])] == []


def test_a_held_run_that_was_stopped_ends_with_the_same_bits(weights: Path, tmp_path: Path) -> None:
    """Stopped in the last held epoch, with a checkpoint after every step."""
    run = dhm.Config(**WARM, weights=str(weights), frozen_epochs=2, epochs=3)
    whole = dhm.fit(run, runs_dir=tmp_path / "whole", accelerator="cpu", progress=False)
    step, calls = Trainer.step, []

    def stopping(self, *position):
        calls.append(position[:2])
        if position[:2] == (1, 1):
            raise KeyboardInterrupt
        return step(self, *position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            dhm.fit(run, runs_dir=tmp_path / "cut", accelerator="cpu", progress=False, checkpoint_every=0)
    again = dhm.fit(run, runs_dir=tmp_path / "cut", accelerator="cpu", progress=False)
    assert again.environment[-1]["from"] == [1, 1]
    states = [checkpoints.load(record.folder / "last.pt") for record in (whole, again)]
    for name, value in states[0]["net"].items():
        assert torch.equal(value, states[1]["net"][name]), name
    assert whole.result is not None
    assert again.result is not None
    assert whole.result["last"] == again.result["last"]


def test_the_optimizer_is_amsgrad_with_the_papers_settings() -> None:
    run = recipes.table3("paper", architectures=["mobilenet_v1"])[0]
    net = torch.nn.Linear(2, 2)
    group = optimizer_of(run, net).param_groups[0]
    assert (group["amsgrad"], group["betas"], group["weight_decay"], group["lr"]) == (True, (0.9, 0.999), 5e-4, 1e-3)
    assert isinstance(optimizer_of(dhm.Config(), net), torch.optim.SGD)


def test_a_path_asks_for_the_same_recipe() -> None:
    named, placed = (settings("paper", "resnet50", "dhm", where) for where in ("market1501", "/scratch/market1501"))
    assert placed == {**named, "dataset": "/scratch/market1501"}
    assert named["optimizer"] == "amsgrad"


def test_recipe_of_section_4_2() -> None:
    runs = recipes.table3("paper")
    assert len(runs) == 2 * 2 * 3
    for run in runs:
        assert (run.batch_size, run.image_size, run.label_smoothing, run.optimizer) == (32, 256, 0.1, "amsgrad")
        rates = [run.lr_at(epoch) for epoch in range(run.epochs)]
        if run.arch == "resnet50":
            assert (run.frozen_epochs, run.weights) == (10, "imagenet")
            assert rates == pytest.approx([3e-4] * 30 + [3e-5] * 20 + [3e-6] * 20)
        else:
            assert (run.frozen_epochs, run.weights) == (0, "")
            assert rates == pytest.approx([1e-3] * 30 + [1e-4] * 30 + [1e-5] * 30)
    assert {run.dataset for run in runs} == {"market1501", "dukemtmc-reid"}
    assert {run.dataset for run in recipes.table3("quick")} == {"pedestrians"}
    with pytest.raises(dhm.InputError, match="gives 'wrn16_8' no re-identification recipe"):
        recipes.table3("paper", architectures=["wrn16_8"])


def test_weights_that_cannot_be_had_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("downloaded unasked"))
    values = {**WARM, "arch": "resnet50", "options": {}, "weights": "imagenet"}
    with pytest.raises(dhm.InputError, match=r"are not in its cache: put resnet50-\w+\.pth into .*checkpoints"):
        dhm.fit(dhm.Config(**values), runs_dir=tmp_path)
    with pytest.raises(dhm.InputError, match="torchvision has no ImageNet weights for mobilenet_v1"):
        dhm.fit(dhm.Config(**{**values, "arch": "mobilenet_v1"}), runs_dir=tmp_path)
    other = tmp_path / "other.pth"
    torch.save(dhm.create_model("imagenet_resnet", 5, "none", depth=10, base=16).backbone.state_dict(), other)
    with pytest.raises(dhm.InputError, match=r"other\.pth does not fit imagenet_resnet_base8_depth10"):
        dhm.fit(dhm.Config(**{**WARM, "weights": str(other)}), runs_dir=tmp_path)
    with pytest.raises(dhm.InputError, match="frozen_epochs is 3, but without weights"):
        dhm.Config(frozen_epochs=3)


def test_torchvisions_weights_start_b0_with_torchvisions_answers(tmp_path: Path) -> None:
    """Their ResNet-18 with weights of its own drawing, saved as their cache has it, gives the same descriptor."""
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    net = dhm.create_model("resnet18", 7)
    start_from(net, *pretrained("resnet18", str(tmp_path / "resnet18.pth")), "resnet18")
    theirs.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 32, generator=generator(0))
    with torch.no_grad():
        assert torch.equal(net.eval().features(x), theirs(x))


def test_run_record_holds_the_search(tmp_path: Path) -> None:
    run = recipes.table3("smoke", architectures=["imagenet_resnet"], methods=["dhm"])[0]
    record = dhm.fit(run, runs_dir=tmp_path, accelerator="cpu", progress=False)
    assert record.result is not None
    heads = record.result["last"]["heads"]
    assert heads == record.found().summary()
    assert set(heads) == {"B0"}
    assert {"mAP", "rank1", "rank5", "rank10", "cosine_mAP"} <= set(heads["B0"])
    assert {"accuracy/B0", "accuracy/B1", "ce/B2", "kl/B0<-B1"} <= set(record.metrics[-1]["train"])
    best = max(record.metrics, key=lambda line: line["test"]["B0"]["mAP"])
    assert record.result["best"]["epoch"] == best["epoch"]
    table = results.samples(results.by_dataset(dhm.load_runs(tmp_path)), "mAP")
    assert {key: sample.mean for key, sample in table.items()} == {
        (f"{run.network} on pedestrians", "dhm"): heads["B0"]["mAP"]
    }
    figure = searches([record])  # four queries, each with ten places beside it
    assert len(figure.axes) == 4 * 11
    assert {ax.get_ylabel() for ax in figure.axes} == {"", "DHM"}
    net = dhm.load_trained(record)
    assert evaluate(net, run, accelerator="cpu").summary() == heads
    for parameter in net.branches.parameters():
        parameter.data.zero_()
    assert evaluate(net, run, accelerator="cpu").summary() == heads  # no branch takes part


def test_an_estimate_times_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs B0 alone and searches the gallery, so that is what is timed."""
    run = recipes.table3("smoke", architectures=["imagenet_resnet"], methods=["dhm"])[0]
    answers, rank, searched = dhm.BranchedNet.all_logits, SingleQuery.rank, []

    def all_logits(self: dhm.BranchedNet, x: torch.Tensor) -> dict[str, torch.Tensor]:
        assert self.training, "a branch takes part"
        return answers(self, x)

    monkeypatch.setattr(dhm.BranchedNet, "all_logits", all_logits)
    monkeypatch.setattr(SingleQuery, "rank", lambda self, z: (searched.append(z), time.sleep(1), rank(self, z)))
    assert estimate(run, 1, "cpu").seconds > run.epochs
    assert len(searched) == 1


def test_a_set_given_by_its_path_is_judged_by_its_name(tmp_path: Path) -> None:
    """A run on /scratch/market1501 is Table 3's run on market1501, in the shelf and in the rows judged."""
    run = recipes.table3("paper", ["resnet50"], ["market1501"], ["dhm"])[0]
    write_run(tmp_path, run.replace(dataset="/scratch/market1501"), 20.0)
    table = results.by_dataset(shelf.gather([tmp_path]).of_the_paper["table3"])
    assert table["network"].tolist() == ["resnet50 on market1501"]


def test_training_teaches_to_find_people_again(tmp_path: Path) -> None:
    """The quick recipe's small ResNet in a few epochs, on people it never saw, against itself untrained."""
    run = recipes.table3("quick", architectures=["imagenet_resnet"], methods=["baseline"], epochs=8, milestones=(6,))[0]
    torch.manual_seed(0)
    untrained = evaluate(network_of(run, 40), run, accelerator="cpu").summary()["B0"]
    record = dhm.fit(run, runs_dir=tmp_path, accelerator="cpu", progress=False)
    assert record.result is not None
    trained = record.result["last"]["heads"]["B0"]
    assert untrained["mAP"] < 6
    assert trained["mAP"] > 12
