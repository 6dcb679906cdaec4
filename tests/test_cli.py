"""The command line: what it prints, and one sentence for what is wrong, before any training."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import small_config, write_image

import dhm
from dhm.__main__ import main, parser
from dhm.data import Images, load
from dhm.options import configs_from, explained
from dhm.training import evaluation
from dhm.training.estimate import estimate

SMALL = [
    "--arch", "cifar_resnet", "--options", "depth=8", "--image-size", "8", "--train-per-class", "64",
    "--epochs", "1", "--batch-size", "64", "--accelerator", "cpu",
]  # fmt: skip


def configs(line: str) -> list[dhm.Config]:
    return configs_from(parser().parse_args(["train", *line.split()]))


def test_a_reid_set_asks_for_its_recipe() -> None:
    """Table 3's runs, from the network and the data set alone; on another set ResNet-50 keeps ImageNet's."""
    from dhm.paper import recipes

    (asked,) = configs("--preset paper --arch resnet50 --dataset dukemtmc-reid --method dhm")
    assert asked.digest in {run.digest for run in recipes.table3("paper", ["resnet50"], ["dukemtmc-reid"], ["dhm"])}
    (other,) = configs("--preset paper --arch resnet50 --dataset my-images")
    assert (other.optimizer, other.epochs) == ("sgd", 90)


def test_all_notebooks_run_side_by_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Each once, in processes with one thread; what fails is named at the end."""
    from dhm import notebook

    run, broken, started = [], set[str](), []

    def execute(name: str, parameters: dict[str, str]) -> str:
        run.append(name)
        if name in broken:
            raise dhm.InputError(f"{name} stopped in a cell")
        return f"runs/{name}"

    def pool(count: int, context: object, prepare: Callable[[], None]) -> ThreadPoolExecutor:
        started.append((count, prepare))
        return ThreadPoolExecutor(count)

    monkeypatch.setattr(notebook, "run_notebook", execute)
    monkeypatch.setattr(notebook, "ProcessPoolExecutor", pool)
    assert main(["notebook", "all"]) == 0
    assert sorted([*run, notebook.REPORT]) == notebook.list_notebooks()
    assert f"[{len(run)}/{len(run)}] runs/" in capsys.readouterr().out
    broken = {"explore", "00_tour"}
    assert main(["notebook", "all"]) == 2
    told = capsys.readouterr()
    assert "explore stopped in a cell" in told.out
    assert told.err.endswith("notebooks 2 failed: 00_tour, explore\n")
    assert main(["notebook", "all", "-p", "preset", "smoke"]) == 2
    assert "parameters and an output belong to one notebook" in capsys.readouterr().err

    (count, prepare), _ = started
    assert count == os.cpu_count()
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(notebook.signal, "signal", lambda *_: None)
    prepare()
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_list_names_every_network(capsys: pytest.CaptureFixture) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in dhm.list_models())
    assert "470,004" in out


def test_train_evaluate_and_train_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["train", *SMALL, "--method", "baseline", "dhm", "--runs-dir", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "B0" in printed
    records = sorted((tmp_path / "own").iterdir())
    assert len(records) == 2
    before = {file: file.stat().st_mtime_ns for record in records for file in record.iterdir()}
    assert main(command) == 0
    assert capsys.readouterr().out == printed
    assert before == {file: file.stat().st_mtime_ns for record in records for file in record.iterdir()}
    for record in records:
        assert main(["evaluate", str(record), "--accelerator", "cpu"]) == 0
        out = capsys.readouterr().out
        assert len({len(line) for line in out.splitlines()}) == 1  # columns stand under their titles
        result = dhm.RunRecord.read(record).result["last"]["heads"]
        for head, errors in result.items():
            assert re.search(rf" {head} +{errors['top1_error']:.3f} +{errors['top5_error']:.3f} ", out)


def test_config_file_trains_the_same_run(tmp_path: Path) -> None:
    config = small_config(seed=3, method="dsl", arch="wrn", options={"depth": 10, "width": 1})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert configs(f"--config {tmp_path / 'config.json'}") == [config]
    assert configs(f"--config {tmp_path / 'config.json'} --seed 4")[0] == config.replace(seed=4)


def test_grid_runs_all_methods_of_a_seed_before_the_next() -> None:
    grid = configs("--preset paper --arch resnet32 wrn16_8 --seed 0 1 --method baseline dhm --epochs 2")
    assert [(c.arch, c.seed, c.method) for c in grid][:4] == [
        ("resnet32", 0, "baseline"), ("resnet32", 0, "dhm"), ("resnet32", 1, "baseline"), ("resnet32", 1, "dhm"),
    ]  # fmt: skip
    assert [c.weight_decay for c in configs("--preset released --arch wrn16_8")] == [5e-4]
    assert configs("--preset paper --arch wrn16_8")[0].milestones == (60, 120, 160)


def test_a_small_preset_says_what_it_takes_of_images_of_the_reader(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Of three classes smoke trains two; who asks for all of them gets them and is told nothing."""
    command = ["train", "--preset", "smoke", "--dataset", str(folder), "--runs-dir", str(tmp_path), "--epochs", "1",
               "--train-per-class", "7", "--accelerator", "cpu"]  # fmt: skip
    for more, told, seen in (([], f"of {folder} this preset takes classes=2 (null takes all)\n", 2),
                             (["--classes", "null"], "", 3)):  # fmt: skip
        assert main([*command, *more]) == 0
        out = capsys.readouterr().out
        assert out.startswith(told + "[1/1]")
        name = out.splitlines()[-1].split()[1].rstrip(":")
        assert dhm.RunRecord.read(tmp_path / "own" / name).result["data"]["classes"] == seen


def test_epochs_move_the_milestones_that_are_not_given() -> None:
    """A hundred epochs from the quick preset, whose rate falls after 3 and 5 of 6, must not stand still from there."""
    assert configs("--epochs 100")[0].milestones == (50, 83)
    assert configs("--preset paper --arch wrn16_8 --epochs 20")[0].milestones == (6, 12, 16)
    assert configs("--epochs 1")[0].lr_at(0) == configs("")[0].lr
    assert configs("--epochs 100 --milestones 60")[0].milestones == (60,)
    assert configs("--epochs 100 --milestones")[0].milestones == ()


def test_estimate_says_how_long(capsys: pytest.CaptureFixture) -> None:
    assert main(["estimate", *SMALL, "--method", "baseline", "dhm", "--steps", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert all("ms a step" in line and "10 steps" in line for line in out[:2])
    assert out[2].startswith("all 2 runs: ")


def test_epochs_hold_layers_for_the_same_share() -> None:
    """Ten of 70 epochs, so that short runs train the other layers too, unless they are asked not to."""
    reid = "--preset paper --arch resnet50 --dataset market1501"
    assert [configs(f"{reid} --epochs {epochs}")[0].frozen_epochs for epochs in (140, 35, 7, 1)] == [20, 5, 1, 0]
    assert configs(f"{reid} --epochs 7 --milestones 5 --frozen-epochs 7")[0].frozen_epochs == 7
    assert configs(f"{reid} --epochs 100 --frozen-epochs 80")[0].frozen_epochs == 80  # more than the recipe's 70
    assert configs(f"{reid} --epochs 7 --frozen-epochs 0 --weights=")[0].weights == ""
    with pytest.raises(dhm.InputError, match="frozen_epochs is 8, but the run has 7 epochs"):
        configs(f"{reid} --epochs 7 --frozen-epochs 8")


def test_a_number_is_one_run_however_it_is_written() -> None:
    assert configs("--lr 1")[0].digest == configs("--lr 1.0")[0].digest
    assert configs("--ce-weights B0=1")[0].digest == configs("--ce-weights B0=1.0")[0].digest


def test_a_word_stays_a_word() -> None:
    (config,) = configs("--experiment 2024 --dataset true --classes 3")
    assert (config.experiment, config.dataset, config.classes) == ("2024", "true", 3)


def test_no_write_permission(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert main(["train", *SMALL, "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(dhm.InputError, match="cannot be written"):
        dhm.fit(small_config(), runs_dir=tmp_path / "runs", accelerator="cpu", progress=False)


def test_nan_stops_the_run_with_epoch_step_and_term(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", *SMALL, "--lr", "1e20", "--runs-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "epoch 0, step " in error
    assert "the term " in error
    assert not list(tmp_path.rglob("result.json"))


def test_two_processes_share_a_grid(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dhm", "train", *SMALL, "--epochs", "2", "--seed", "0", "1", "--method",
               "baseline", "--runs-dir", str(tmp_path)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    children = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    records = [dhm.RunRecord.read(folder) for folder in (tmp_path / "own").iterdir()]
    assert len(records) == 2
    assert all(record.result is not None and len(record.environment) == 1 for record in records)


def test_a_run_is_evaluated_in_other_arithmetic_than_it_was_trained_in(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A GPU's record in half precision, which processors lack."""
    net = dhm.create_model("cifar_resnet", 5, depth=8)
    lines = []
    for precision in ("16-mixed", "32-true"):
        record = dhm.RunRecord.of(small_config(precision=precision), tmp_path)
        record.create()
        record.write_checkpoint("last", {"net": net.state_dict()})
        command = ["evaluate", str(record.folder), "--accelerator", "cpu"]
        if precision == "16-mixed":
            assert main(command) == 2
            assert "cpu has no 16-mixed precision" in capsys.readouterr().err
        assert main([*command, "--precision", "32-true"]) == 0
        lines.append(capsys.readouterr().out.replace(record.folder.name, ""))
        assert main([*command, "--precision", "auto"]) == 0
        capsys.readouterr()
    assert lines[0].split() == lines[1].split()


def test_evaluate_tells_of_a_class_mismatch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    record = dhm.fit(small_config(epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
    record.write_json("config.json", record.config.replace(classes=2, train_per_class=None).to_dict())
    assert main(["evaluate", str(record.folder)]) == 2
    assert "is not that of the run its folder is named after" in capsys.readouterr().err
    (record.folder / "SHA256SUMS").unlink()
    assert main(["evaluate", str(record.folder.rename(tmp_path / "own" / "edited"))]) == 2
    assert "the network has 5 classes, but fashion-mnist-mini has 2" in capsys.readouterr().err


def test_evaluate_counts_numbered_classes_as_the_network_does(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A network that always answers 10, on 9 images of class 10 and one of each of eleven others: 55 % are wrong. What
    this program trained on such folders counts them in the order of words, and so is tested."""
    net = dhm.create_model("resnet32", 12, "none")
    torch.nn.init.zeros_(net.backbone.fc.weight)
    with torch.no_grad():
        net.backbone.fc.bias.copy_(torch.arange(12) == 10)
    torch.save(net.main_only().state_dict(), tmp_path / "ten.pth")
    for number in range(12):
        for i in range(9 if number == 10 else 1):
            write_image(tmp_path / "set" / "val" / str(number) / f"{i}.jpg", number)
    options = {"dataset": str(tmp_path / "set"), "augment": "scale", "image_size": 32}
    assert main(["evaluate", str(tmp_path / "ten.pth"), "--dataset", options["dataset"], "--augment", "scale",
                 "--image-size", "32", "--workers", "0", "--accelerator", "cpu"]) == 0  # fmt: skip
    assert " B0        55.000 " in capsys.readouterr().out
    record = dhm.RunRecord.of(dhm.Config(**options, branches="none", method="baseline"), tmp_path / "runs")
    record.create()
    record.write_checkpoint("last", {"net": net.state_dict()})
    assert main(["evaluate", str(record.folder), "--workers", "0", "--accelerator", "cpu"]) == 0
    assert " B0        95.000 " in capsys.readouterr().out  # the tenth word is 8


def test_help_explains_every_setting(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert '--method {baseline,dsl,dhm} [{baseline,dsl,dhm} ...] "baseline" trains the plain network' in told
    assert '--test-on {val,val+rest} "val", or "val+rest" to test on the training images left out' in told
    assert "--lr VALUE of the optimizer. --momentum VALUE of the optimizer." in told
    assert list(explained()) == [field.name for field in dataclasses.fields(dhm.Config)]


@pytest.mark.parametrize("command", [["estimate"], ["evaluate", "some.pth"]])
def test_what_keeps_no_record_takes_no_folder_for_it(command: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--runs-dir", "x"])
    assert "unrecognized arguments: --runs-dir x" in capsys.readouterr().err


def test_an_estimate_counts_the_reading_of_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """By batches as the test takes them, each read within the clock."""
    read = Images.test_batches

    def slow(self: Images, batch_size: int) -> Iterator:
        assert batch_size == evaluation.batch_size(self)
        for batch in read(self, batch_size):
            time.sleep(0.2)
            yield batch

    monkeypatch.setattr(Images, "test_batches", slow)
    config = small_config(epochs=1)
    batches = len(load(config).test) / 100
    assert estimate(config, 1, "cpu").seconds > 0.2 * batches
