"""Single runs beside the paper's five, and against each other."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write_run

import dhm
from dhm.analysis.evidence import single_runs
from dhm.analysis.statistics import Sample
from dhm.metrics.classification import Predictions
from dhm.paper import recipes


def test_one_more_run_falls_into_the_interval_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(4000):
        *five, sixth = rng.normal(30, 0.2, 6)
        low, high = Sample.of(five).prediction()
        inside += low <= sixth <= high
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)
    low, high = Sample(30.306, 0.207, 5).prediction()  # t(4) at 97.5 % is 2.776
    assert (low, high) == pytest.approx((30.306 - 2.776 * 0.207 * 1.0954, 30.306 + 2.776 * 0.207 * 1.0954), abs=1e-3)
    assert Sample.of([1.0]).prediction() == (-np.inf, np.inf)


def write(folder: Path, method: str, error: float, wrong: list[int], seed: int = 0) -> None:
    config = recipes.table1("paper", ["resnet32"], [method], [seed])[0]
    run = dhm.RunRecord(write_run(folder, config, error), config)
    labels = np.zeros(100, dtype=int)
    predicted = np.isin(np.arange(100), wrong).astype(int)[None]
    rest = (np.ones((1, 100)), np.ones((1, 100)), np.zeros((1, 100), dtype=int))
    run.write_predictions("last", Predictions(("B0",), labels, predicted, *rest))


def test_runs_of_the_papers_row(tmp_path: Path) -> None:
    write(tmp_path, "baseline", 30.0, list(range(20)))
    write(tmp_path, "dhm", 27.0, list(range(6)))
    write(tmp_path, "dsl", 31.2, list(range(10, 33)))
    write(tmp_path, "dhm", 29.0, [], seed=1)
    runs = dhm.load_runs(tmp_path)
    shown = single_runs.beside_print(runs)
    assert shown["verdict"].to_dict() == {
        ("resnet32", 0, "baseline"): "inside",
        ("resnet32", 0, "DSL"): "outside",
        ("resnet32", 0, "DHM"): "inside",
        ("resnet32", 1, "DHM"): "outside",
    }
    assert shown.loc[("resnet32", 0, "baseline"), "one more run of it"] == "[29.68, 30.94]"
    pairs = single_runs.within_seeds(runs).loc[("resnet32", 0)]
    assert pairs.loc["DHM over baseline", "images won : lost"] == "14 : 0"
    assert pairs.loc["DHM over baseline", "p (McNemar)"] == "0.0001"  # 2 / 2^14
    assert pairs["gain (points)"].to_dict() == {
        "DHM over baseline": "+3.00",
        "DSL over baseline": "-1.20",
        "DHM over DSL": "+4.20",
    }
    assert pairs["verdict"].tolist() == [
        "agrees in sign (one run)",
        "disagrees in sign (one run)",
        "agrees in sign (one run)",
    ]
    assert len(single_runs.within_seeds(runs)) == 3


def test_no_runs_give_empty_tables(tmp_path: Path) -> None:
    write(tmp_path, "dhm", 29.0, [])
    runs = dhm.load_runs(tmp_path)
    assert single_runs.within_seeds(runs).empty
    assert list(single_runs.tables({"one": runs, "none": runs[:0]})) == ["one, beside the paper"]
