"""What is told of predictions and of an epoch's losses."""

import pytest
import torch

from dhm import paths
from dhm.metrics.classification import Predictions, collect, judge
from dhm.records.store import find
from dhm.training.ledger import know_nothing


def test_equal_logits_win_nothing() -> None:
    """In half precision many are equal; the places are those of a stable sort, whose first is the one predicted."""
    logits = torch.randint(0, 6, (500, 40), generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(500) % 40
    predicted, _, _, rank = judge({"B0": logits}, labels)[0].T
    order = logits.float().sort(dim=1, descending=True, stable=True).indices
    assert torch.equal(rank.long(), (order == labels[:, None]).int().argmax(dim=1))
    assert torch.equal(rank == 0, predicted == labels)


def test_logits_that_are_no_numbers_are_wrong_answers() -> None:
    logits = torch.eye(12)
    logits[3] = torch.nan
    found = collect(["B0"], judge({"B0": logits}, torch.arange(12)), torch.arange(12)).summary()["B0"]
    assert found["top1_error"] == found["top5_error"] == pytest.approx(100 / 12)


@pytest.mark.parametrize(("classes", "kind"), [(32_767, "int16"), (32_768, "int32"), (40_000, "int32")])
def test_a_file_keeps_any_number_of_classes(classes: int, kind: str) -> None:
    """An answer that is no number comes behind all of them, so its rank is their number."""
    labels = torch.tensor([classes - 1, 5])
    logits = torch.stack([torch.zeros(classes).index_fill(0, labels[:1], 1), torch.full((classes,), torch.nan)])
    found = collect(["B0"], judge({"B0": logits}, labels), labels)
    kept = Predictions.from_arrays(found.arrays())
    assert {array.dtype.name for array in (kept.labels, kept.predicted, kept.rank)} == {kind}
    assert kept.labels.tolist() == labels.tolist()
    assert [kept.predicted.tolist(), kept.rank.tolist()] == [[[classes - 1, -1]], [[0, classes]]]


def test_knowing_nothing_is_told_from_slow_learning() -> None:
    """By the measured runs on corrupt labels: under DHM all stood at chance after three epochs, no other did."""
    records = list(find(paths.records_dir() / "c1-corrupt-labels"))
    if not records:
        pytest.skip("no measured run is here")
    for record in records:
        early, last = (know_nothing(record.metrics[epoch]["train"], 20) for epoch in (2, -1))
        assert early == (record.config.method == "dhm")
        assert not last
