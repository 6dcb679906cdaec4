"""Figure 2's table: accuracies read from the runs that are drawn, and what ends lowest and highest."""

from pathlib import Path

import pytest
from conftest import small_config, write_run

import dhm
from dhm.analysis.evidence import fitting, protocol
from dhm.training.evaluation import accuracy, evaluate


def test_the_first_run_of_each_variant_is_drawn(tmp_path: Path) -> None:
    configs = [small_config(method=method, seed=seed) for seed in (0, 1) for method in ("dhm", "baseline")]
    made = [dhm.RunRecord.read(write_run(tmp_path, config, 20.0 + 10 * config.seed)) for config in configs]
    drawn = fitting.first_seeds(made)
    assert {name: run.config.seed for name, run in drawn["cifar_resnet_depth8"].items()} == {"dhm": 0, "baseline": 0}
    assert fitting.listed(drawn) == made[:2]
    assert len(fitting.finished(str(tmp_path))) == 4
    table = fitting.accuracies(drawn, {"cifar_resnet_depth8": {"dhm": 70.0}})
    row = table.loc[("cifar_resnet_depth8", "DHM")]
    assert row.tolist() == [90.0, 70.0, 80.0]
    assert fitting.compared(drawn, [("baseline", "dhm"), ("dsl", "dhm")]) == [("baseline", "dhm")]
    last = fitting.last_epochs(protocol.curves(made))
    assert last.loc[("own", "DHM")].tolist() == [2, 90.0, 75.0]
    with pytest.raises(dhm.InputError, match="there is no finished run in "):
        fitting.finished(str(tmp_path / "nothing"))


def test_variants_are_compared_by_their_method(tmp_path: Path) -> None:
    """ResNet-18 under DHM with scale augmentation departs from the recipe and is still what is compared."""
    big = {"arch": "resnet18", "options": {}, "augment": "scale", "image_size": 64}
    made = [dhm.RunRecord.read(write_run(tmp_path, small_config(method=m, **big), 20.0)) for m in ("baseline", "dhm")]
    assert fitting.compared(fitting.first_seeds(made), [("baseline", "dhm")]) == [("baseline", "dhm, with scale")]


def test_which_method_ends_where(tmp_path: Path) -> None:
    """Lowest in training, highest on validation; a column that not all runs have says nothing."""
    made = []
    for method, error, seen in (("baseline", 30.0, 0.8), ("dhm", 20.0, 0.7)):
        record = dhm.RunRecord.read(write_run(tmp_path, small_config(method=method), error))
        record.write_metrics([{**record.metrics[-1], "train": {"accuracy/B0": seen}}])
        made.append(record)
    drawn = fitting.first_seeds(made)
    (sentence,) = fitting.ends(fitting.accuracies(drawn, {"cifar_resnet_depth8": {"dhm": 70.0}}))
    assert sentence == (
        f"**cifar_resnet_depth8**: lowest {fitting.SEEN}: DHM; highest {fitting.VALIDATION}: DHM (one run each)"
    )
    plain = {"cifar_resnet_depth8": {"dhm": 70.0, "baseline": 60.0}}
    assert f"lowest {fitting.PLAIN}: baseline" in fitting.ends(fitting.accuracies(drawn, plain))[0]


def test_training_images_are_those_of_the_run(tmp_path: Path) -> None:
    record = dhm.fit(small_config(epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
    without = dhm.RunRecord.read(write_run(tmp_path, small_config(method="dsl"), 20.0))
    plain = fitting.on_training_images(fitting.first_seeds([record, without]), "cpu")
    net = dhm.load_trained(record)
    expected = 100 - evaluate(net, record.config, accelerator="cpu", train=True).summary()["B0"]["top1_error"]
    assert plain == {"cifar_resnet_depth8": {"dhm": expected}}


def test_accuracy_of_any_network(tmp_path: Path) -> None:
    """Of a branched network every classifier's, of the plain one B0's: what the run record says."""
    from dhm.data import load_test

    record = dhm.fit(small_config(epochs=1), runs_dir=tmp_path, accelerator="cpu", progress=False)
    assert record.result is not None
    expected = {head: 100 - found["top1_error"] for head, found in record.result["last"]["heads"].items()}
    net, images = dhm.load_trained(record), load_test(record.config)[0]
    assert accuracy(net, images) == pytest.approx(expected)
    assert accuracy(net.main_only(), images) == pytest.approx({"B0": expected["B0"]})
