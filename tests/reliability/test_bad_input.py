"""What people get wrong, and the sentence each is told: exit code 2, one line, no traceback, and nothing half-made."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import small_config, write_image, write_run

import dhm
from dhm.__main__ import main
from dhm.data import load
from dhm.memory import ran_out
from dhm.paper import recipes
from dhm.records.weights import pretrained
from dhm.training.estimate import estimate

TRAIN = [
    ("--accelerator cuda", "the device 'cuda' cannot be used"),
    ("--accelerator tpu", "the accelerator must be one of auto, cpu, cuda, not 'tpu'"),
    ("--accumulate 0", "a batch of 64 cannot be divided over 1 devices with accumulate 0"),
    ("--accumulate 65", "their product must be from 1 to 64"),
    ("--accumulate two", "argument --accumulate: invalid int value: 'two'; python -m dhm train --help shows the usage"),
    ("--arch resnet33", "there is no network 'resnet33'"),
    ("--arch cifar_resnet resnet33", "there is no network 'resnet33'"),
    ("--arch wrn --options depth=10 width=100000", "parameters in training take"),
    ("--arch wrn --options depth=10 width=100000000000", "the network is too large to be built"),
    ("--arch imagenet_resnet --augment scale --workers -1", "workers must be 0 or more, not -1"),
    ("--arch imagenet_resnet --image-size 32 --train-per-class 200 --batch-size 1999",
     "batch_size of 1999 leaves a single one of 2,000"),
    ("--augment flip", "augment must be one of crop, none, scale, fixed_scale, not 'flip'"),
    ("--augment scale --image-size null", "augment 'scale' needs an image_size, e.g. 224"),
    ("--batch-size 0", "batch_size must be at least 1, not 0"),
    ("--batch-size 99999999999999999999999", "batch_size must be at most 9223372036854775807"),
    ("--branches what", 'branches must be "paper", "none", "twin" or a list of BranchSpec, not'),
    ("--branches [1]", "branches must be a word or a list whose items are each a mapping"),
    ("--branches [{}]", "a branch is given by name, root, depths and width, not by {}"),
    ('--branches [{"name":"B1","root":9,"depths":[1]}]', "branch B1: root must be a stage from 0 to 3"),
    ('--branches [{"name":"B1","root":2,"depths":[20000]}]', "a network of 20,000 blocks is deeper than the 10,000"),
    ("--ce-weights B9=2", "a loss weight is given for 'B9'"),
    ("--ce-weights B0", "ce_weights must be written NAME=VALUE, not 'B0'"),
    ("--ce-weights B0=x", "ce_weights must be a mapping from names to finite numbers, not {'B0': 'x'}"),
    ("--classes 1", "classes must be at least 2, not 1"),
    ("--classes 400", "classes is 400, but the data set has 10"),
    ("--config nothing.json", "nothing.json is no configuration of a run"),
    ("--config five.json", "five.json is no configuration of a run: it holds no settings"),
    ("--config deep.json", "deep.json is no configuration of a run: it is nested too deep"),
    ("--config image.jpg", "image.jpg is no configuration of a run: 'utf-8' codec can't decode"),
    ("--config empty", "empty is no regular file; put the file itself there"),
    ("--config five.json --preset smoke", "a preset or a config to start from, not both"),
    ("--dataset nowhere", "there is no data set 'nowhere'"),
    ("--dataset 2024", "there is no data set '2024'"),
    ("--dataset image.jpg", "there is no data set 'image.jpg'"),
    ("--dataset=", "dataset must be a name or a folder, not an empty word"),
    ("--dataset cifar100", "CIFAR-100 is missing or incomplete"),
    ("--dataset empty", "empty is not in the ImageNet layout: it has no folder train/<class>/<image>"),
    ("--arch mobilenet_v1 --preset paper", "Market-1501 is not in"),
    ("--direction up", "direction must be one of both, top_down, bottom_up, not 'up'"),
    ("--epochs 0", "epochs must be at least 1, not 0"),
    ("--epochs 1e3", "epochs must be an integer, not 1000.0"),
    ("--experiment ../x", "experiment must be a plain folder name"),
    ("--frozen-epochs 1", "frozen_epochs is 1, but without weights no layer can be held"),
    ("--gamma 0", "gamma must be a positive number, not 0"),
    ("--image-size 7", "image_size must be at least 8, not 7"),
    ("--image-size 65536", "the images at this image_size take"),
    ("--image-size 99999999999999999999999", "image_size must be at most 65536"),
    ("--isolated B1", "isolated is 'B1', but only method \"baseline\" trains a branch alone"),
    ("--isolated B9 --method baseline", "isolated must be one of B0, B1, B2, not 'B9'"),
    ("--label-noise 1", "label_noise must be in [0, 1), not 1"),
    ("--label-noise-excludes-truth yes", "label_noise_excludes_truth must be true or false, not 'yes'"),
    ("--label-smoothing -0.1", "label_smoothing must be in [0, 1), not -0.1"),
    ("--lr big", "lr must be a finite number, not 'big'"),
    ("--lr NaN", "lr must be a finite number, not nan"),
    ("--lr 0", "lr must be a positive number, not 0"),
    ("--lr 1e39", "lr must be at most 3.4e+38, not 1e+39"),
    (f"--lr 1{'0' * 400}", "lr must be a finite number, not 1000"),
    ("--method deep", "method must be one of baseline, dsl, dhm, not 'deep'"),
    ("--milestones a", "milestones must be a list"),
    ("--milestones -3", "milestones are epochs from 1 on, not [-3]"),
    ("--milestones [[[[", "milestones must be a list whose items are each an integer"),
    ("--mimic-probability 1.5", "mimic_probability must be in [0, 1], not 1.5"),
    ("--mimic-weights B0=1", "a loss weight is given for 'B0', but the classifiers are B0, B1, B2"),
    ("--momentum 1", "momentum must be in [0, 1), not 1"),
    ("--no-such-setting 1", "unrecognized arguments: --no-such-setting 1"),
    ("--optimizer adam", "optimizer must be one of sgd, amsgrad, not 'adam'"),
    ("--options depth=9", "depth must be 6n + 2"),
    ("--options depth=6000000002", "a network of 3,000,000,000 blocks is deeper than the 10,000 that are built"),
    ("--options depth=8 depth=14", "options gives depth twice"),
    ("--options width=9", "has no option 'width'"),
    ("--options width=Infinity", "options must be a mapping from names to finite values, not {'width': inf}"),
    ("--precision 64", "precision must be one of 32-true, bf16-mixed, 16-mixed, not '64'"),
    ("--precision 16-mixed --accelerator cpu", "cpu has no 16-mixed precision; take bf16-mixed"),
    ("--preset fast", "preset must be one of quick, smoke, paper, released, not 'fast'"),
    ("--runs-dir five.json", "five.json/own/"),
    ("--seed 1.5", "seed must be an integer, not 1.5"),
    ("--seed one", "seed must be an integer, not 'one'"),
    ("--seed -1", "seed must be at least 0, not -1"),
    ("--seed null", "seed must be an integer, not None"),
    ("--seed 99999999999999999999999", "seed must be at most 18446744073709551615, not 99999999999999999999999"),
    ("--temperature 0", "temperature must be a positive number, not 0"),
    ("--test-on test", "test_on must be one of val, val+rest, not 'test'"),
    ("--preset paper --test-on val+rest", "needs train_per_class"),
    ("--train-per-class 0", "train_per_class must be at least 1, not 0"),
    ("--train-per-class 99999", "train_per_class is 99999, but a class has only 400 training images"),
    ("--weight-decay 1e39", "weight_decay must be at most 3.4e+38, not 1e+39"),
    ("--weight-decay -1", "weight_decay must not be negative, not -1"),
    ("--weights nowhere.pt", "there is no checkpoint nowhere.pt"),
    ("--weights empty", "empty is a folder, a pipe or a device, not a checkpoint"),
    ("--weights imagenet", "torchvision has no ImageNet weights for cifar_resnet"),
    ("--weights image.jpg", "image.jpg is damaged or no checkpoint of tensors"),
]  # fmt: skip
COMMANDS = [
    ("", "the following arguments are required: COMMAND; python -m dhm --help shows the usage"),
    ("trian", "invalid choice: 'trian'"),
    ("estimate --steps 0 --preset smoke", "steps must be at least 1, not 0"),
    ("estimate --arch nothing", "there is no network 'nothing'"),
    ("evaluate", "the following arguments are required: path"),
    ("evaluate nowhere.pt", "there is no checkpoint nowhere.pt"),
    ("evaluate image.jpg", "image.jpg is damaged or no checkpoint of tensors"),
    ("evaluate empty", "empty is no run record: it has no config.json"),
    ("evaluate run", "there is no checkpoint run/last.pt"),
    ("evaluate run --which first", "invalid choice: 'first'"),
    ("evaluate run --dataset cifar100", "has its settings in itself; leave out dataset"),
    ("evaluate run --preset paper", "has its settings in itself; leave out preset"),
    ("evaluate run --config five.json", "has its settings in itself; leave out config"),
    ("evaluate five.json --arch resnet32 wrn16_8", "five.json holds one network; give one arch"),
    ("evaluate number.pt", "number.pt holds a int, not a checkpoint"),
    ("evaluate other.pt", "other.pt has no classifier named fc"),
    ("keep nowhere", "there is no folder nowhere"),
    ("keep five.json", "there is no folder five.json"),
    ("keep empty", "there is no run record that can be read in empty"),
    ("keep run", "there is no checkpoint run/last.pt"),
    ("verify nowhere", "there is no folder nowhere"),
    ("notebook ../../etc/passwd", "there is no notebook '../../etc/passwd'"),
    ("notebook all -p preset smoke", "parameters and an output belong to one notebook, not to all"),
    ("notebook report --refresh -p device cpu", "a notebook is refreshed as it stands"),
    ("notebook table1_cifar100 -p epochs 3", "table1_cifar100 has no parameter 'epochs'; it has preset, "),
    ("notebook table1_cifar100 -p seeds 1", "the parameter seeds must be a list like [], not '1'"),
    ("notebook table1_cifar100 -p seeds ((((", "the parameter seeds must be a list like [], not '(((('"),
    ("notebook table1_cifar100 -p download maybe", "the parameter download must be a bool like False, not 'maybe'"),
    ("notebook table1_cifar100 -p seeds", "argument -p: expected 2 arguments"),
    ("notebook table1_cifar100 -o x.txt", "x.txt must end in .ipynb"),
    ("report -o page.pdf", "page.pdf must end in .html"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: a few things that are none of what is asked for, and a record without checkpoints."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "five.json").write_text("5")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    write_image(tmp_path / "image.jpg", 0)
    torch.save(5, tmp_path / "number.pt")
    torch.save({"w": torch.zeros(3)}, tmp_path / "other.pt")
    write_run(tmp_path / "written", small_config(), 50).rename(tmp_path / "run")
    for name in ("RUNS", "DATA"):
        monkeypatch.setenv(f"DHM_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("DHM_PRESET", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(file): file.read_bytes() if file.is_file() else None for file in sorted(folder.rglob("*"))}


def see_told(arguments: list[str], sentence: str, place: Path, capfd: pytest.CaptureFixture) -> None:
    """One sentence, exit code 2, and everything as it was."""
    before = contents(place)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            code = main(arguments)
        except SystemExit as left:  # of argparse
            code = left.code
    told = capfd.readouterr().err
    assert (code, told.count("\n")) == (2, 1), told
    assert told.startswith("dhm: ")
    assert sentence in told
    assert contents(place) == before


@pytest.mark.parametrize(("line", "sentence"), TRAIN, ids=[line[:60] for line, _ in TRAIN])
def test_a_training_is_refused(line: str, sentence: str, place: Path, capfd: pytest.CaptureFixture) -> None:
    if "cuda" in line and torch.cuda.is_available():
        pytest.skip("there is one")
    see_told(["train", *line.split()], sentence, place, capfd)


@pytest.mark.parametrize(
    ("act", "memory"),
    [
        (lambda: torch.empty(2**40, 2**40), True),
        (lambda: torch.empty(2**50, dtype=torch.uint8), True),
        (lambda: torch.empty(2**33, device="meta").expand(2**33, 2**33).numel(), True),
        (lambda: torch.zeros(1).add_(torch.ones(1), alpha=1e39), False),
    ],
    ids=["more than can be counted", "more than there is", "views of more", "a number too large"],
)
def test_a_lack_of_memory_is_told_from_other_errors(act: Callable, memory: bool) -> None:
    with pytest.raises(RuntimeError) as told:
        act()
    assert ran_out(told.value) == memory, told.value


@pytest.mark.parametrize(("line", "sentence"), COMMANDS, ids=[line[:60] for line, _ in COMMANDS])
def test_a_command_is_refused(line: str, sentence: str, place: Path, capfd: pytest.CaptureFixture) -> None:
    see_told(line.split(), sentence, place, capfd)


def test_a_name_cannot_move_the_cursor(place: Path, capfd: pytest.CaptureFixture) -> None:
    see_told(["evaluate", "a\nb\x1b[2J.pt"], r"there is no checkpoint a\nb\x1b[2J.pt", place, capfd)


# ----------------------------------------------------------------------------------------------- files of a record

RECORD = [
    ("config.json", b"", "config.json cannot be read: Expecting value"),
    ("config.json", b"[]", "config.json cannot be read: it holds no settings"),
    ("config.json", b'{"archh": "x"}', "config.json is no configuration of a run: a run has no setting 'archh'"),
    ("config.json", b'{"seed": -1}', "config.json is no configuration of a run: seed must be at least 0, not -1"),
    ("config.json", b'{"seed": 7}', "config.json is not that of the run its folder is named after"),
    ("env.json", b"{}", "env.json cannot be read (it holds no list of starts)"),
    ("metrics.jsonl", b"5\n", "metrics.jsonl cannot be read (its line 1 holds no figures of an epoch)"),
    ("metrics.jsonl", b'{"test": {"B0": {"top1_error": "x"}}}\n', "its line 1 holds no figures of an epoch"),
    ("metrics.jsonl", b'{"test": {"B0": 5}}\n', "its line 1 holds no figures of an epoch"),
    ("metrics.jsonl", b'{"epoch": 0', "metrics.jsonl cannot be read (Expecting"),
    ("result.json", b"5", "result.json cannot be read (it holds no figures of a finished run)"),
    ("result.json", b'{"last": {}, "best": {}, "seconds": 1}', "it holds no figures of a finished run"),
    ("result.json", b'{"last": {"heads": {}}, "best": {"heads": {}}}', "it holds no figures of a finished run"),
    ("result.json", b"\xff", "result.json cannot be read ('utf-8' codec can't decode"),
    ("SHA256SUMS", b"hello\n", "SHA256SUMS is damaged (its lines are not those of sha256sum)"),
    ("SHA256SUMS", b"", "SHA256SUMS is damaged (it does not name config.json)"),
    ("SHA256SUMS", b"0" * 64 + b"  config.json\n", "SHA256SUMS is damaged (it does not name metrics.jsonl)"),
    ("predictions-last.npz", b"PK", "predictions-last.npz is damaged or no file of arrays"),
    ("last.pt", b"no checkpoint", "last.pt is damaged or no checkpoint of tensors"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), RECORD)
def test_a_damaged_record_is_named(
    name: str, content: bytes, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """On standard output, since one bad record among many is what `verify` is asked about."""
    folder = write_run(tmp_path, small_config(), 50)
    (folder / name).write_bytes(content)
    before = contents(tmp_path)
    assert main(["verify", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert sentence in told.out
    assert told.out.count("\n") == 3  # the record, its one damaged file, the count
    assert told.err == "dhm: 1 of 1 records are damaged\n"
    assert contents(tmp_path) == before


# ---------------------------------------------------------------------------------------------------- data folders


def unreadable(folder: Path) -> None:
    (folder / "val" / "n01" / "v00.JPEG").write_bytes(b"no picture")


def flat(folder: Path, content: str | bytes | None) -> None:
    for file in sorted((folder / "val").rglob("*.JPEG")):
        file.rename(folder / "val" / file.name)
    for name in ("n01", "n02", "n03"):
        (folder / "val" / name).rmdir()
    if content is not None:
        (folder / "val.txt").write_bytes(content if isinstance(content, bytes) else content.encode())


IMAGES = [f"v{label}{i}" for label in range(3) for i in range(2)]
FOLDERS: list[tuple[Callable[[Path], object], str]] = [
    (unreadable, "v00.JPEG is no readable image"),
    (lambda folder: write_image(folder / "val" / "n01" / "v00.JPEG", 0, (9, 9)), "differs in size from"),
    (lambda folder: (folder / "val").rename(folder / "test"), "it has no folder val/<class>/<image>"),
    (lambda folder: (folder / "train" / "n01").rename(folder / "n01"), "class n01 is in val/ but not in train/"),
    (lambda folder: [file.unlink() for file in (folder / "train" / "n01").iterdir()], "n01 holds no image that Pillow"),
    (lambda folder: (folder / "train" / "n01" / "a").symlink_to(folder / "train"), "is a link to a folder it lies in"),
    (lambda folder: (folder / "train" / "n01" / ("a/" * 12)).mkdir(parents=True), "lies 10 folders deep in its class"),
    (
        lambda folder: flat(folder, None),
        "val holds images outside class folders, and the list of their labels is missing",
    ),
    (lambda folder: flat(folder, ""), "val.txt has no label for v00.JPEG"),
    (lambda folder: flat(folder, b"\xff\xfe\x00"), "val.txt cannot be read as text"),
    (lambda folder: flat(folder, "".join(f"{n} 9\n" for n in IMAGES)), "the label 9, but there are 3 classes"),
    (lambda folder: flat(folder, "".join(f"{n} n09\n" for n in IMAGES)), "class n01 is in train/ but not in val/"),
    (lambda folder: flat(folder, "0\n1\n2\n0\n1\n2\n"), "holds bare numbers, whose order it does not give"),
    (lambda folder: flat(folder, f"v00 n01\nv00 n02\n{'x' * 5000}\n"), "its line 3 has more than 4,096 characters"),
    (lambda folder: (folder / "query").mkdir(), "is not in the layout of Market-1501"),
]


@pytest.mark.parametrize(("change", "sentence"), FOLDERS)
def test_a_folder_of_images_is_refused(
    change: Callable,
    sentence: str,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capfd: pytest.CaptureFixture,
) -> None:
    change(folder)
    runs = tmp_path_factory.mktemp("runs")
    arguments = ["train", "--preset", "smoke", "--dataset", str(folder), "--image-size", "null", "--train-per-class",
                 "null", "--runs-dir", str(runs)]  # fmt: skip
    see_told(arguments, sentence, folder, capfd)
    assert not list(runs.iterdir())


# ------------------------------------------------------------------------------------------------------ Python API

API: list[tuple[Callable[[], object], str]] = [
    (lambda: dhm.create_model("resnet33"), "there is no network 'resnet33'"),
    (lambda: dhm.create_model("resnet32", branches=["B1"]), "branches must be"),
    (lambda: dhm.create_model("cifar_resnet", depth="8"), "option depth must be of type int, not '8'"),
    (lambda: dhm.create_model("resnet32", num_classes=10**13), "the network is too large to be built"),
    (lambda: dhm.BranchSpec("B0", 1), "a branch cannot be called 'B0'"),
    (lambda: dhm.BranchSpec("B1", 1.5), "root must be the whole number of a stage, not 1.5"),
    (lambda: dhm.DHMLoss("dmh"), "method must be one of baseline, dsl, dhm, not 'dmh'"),
    (lambda: dhm.DHMLoss(temperature=0), "temperature must be positive, not 0"),
    (lambda: dhm.DHMLoss()([1.0], torch.zeros(1)), "logits must be given by classifier, the deepest first"),
    (lambda: dhm.Config(lr="0.1"), "lr must be a finite number, not '0.1'"),
    (lambda: dhm.Config(options={"depth": {1, 2}}), "options must be a mapping from names to finite values"),
    (lambda: dhm.Config(options={"depth": torch.zeros(2)}), "options must be a mapping from names to finite values"),
    (lambda: dhm.Config.from_dict({"learning_rate": 1}), "a run has no setting 'learning_rate'; it has experiment"),
    (lambda: dhm.load_released("nowhere.pt"), "there is no checkpoint nowhere.pt"),
    (lambda: dhm.RunRecord.read("nowhere"), "nowhere is no run record: it has no config.json"),
    (lambda: dhm.plain_state({"a": 1}), "holds no state dict of a network"),
    (lambda: pretrained("mobilenet_v1", "imagenet"), "torchvision has no ImageNet weights for mobilenet_v1"),
    (lambda: load(dhm.Config(dataset="nowhere")), "there is no data set 'nowhere'"),
    (lambda: estimate(dhm.Config(), steps=0), "steps must be at least 1, not 0"),
    (lambda: recipes.table1("fast"), "preset must be one of quick, smoke, paper, released, not 'fast'"),
]


@pytest.mark.parametrize(("call", "sentence"), API, ids=[sentence for _, sentence in API])
def test_a_call_is_refused(call: Callable, sentence: str, place: Path) -> None:
    before = contents(place)
    with pytest.raises(dhm.InputError) as told:
        call()
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)
    assert contents(place) == before


def test_a_folder_of_records_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Not a table without columns, which fails at the first look into it."""
    with pytest.raises(dhm.InputError, match=r"there is no folder .*runz"):
        dhm.load_runs(tmp_path / "runz")
