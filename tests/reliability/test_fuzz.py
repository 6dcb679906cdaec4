"""Drawn examples: what holds of every configuration, loss, list of labels and record, and not only of those thought of.

The draws are the same each time; `--long` makes many more of them.
"""

import csv
import functools
import io
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_config, write_run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dhm
from dhm.config import DIRECTIONS, METHODS, PRECISIONS
from dhm.data.labels import flat_labels
from dhm.metrics.classification import Predictions
from dhm.records import checkpoints
from dhm.records.record import FILES

LEAST, MOST = 100, 1000
"""Examples of a property, without and with --long."""


@pytest.fixture
def drawn(long: bool, record_property: Callable) -> Iterator[Callable]:
    """Runs a property on drawn examples; a test calls it, since only then is it known how many are asked for."""
    made = settings(
        max_examples=MOST if long else LEAST, derandomize=True, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    tried = itertools.count()

    def counting(check: Any) -> Callable:
        inner = check.hypothesis.inner_test

        @functools.wraps(inner)
        def counted(*values: Any, **named: Any) -> None:
            next(tried)
            inner(*values, **named)

        check.hypothesis.inner_test = counted
        return made(check)

    yield counting
    record_property("drawn examples", next(tried))


def told(read: Callable) -> tuple[Any, str]:
    """What is read, and the sentence that says why it is not; any other exception is a finding."""
    try:
        return read(), ""
    except dhm.InputError as error:
        return None, str(error)


# -------------------------------------------------------------------------------------------------- configurations

FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
RATE = st.floats(min_value=0, max_value=3.4e38)
SHARE = st.floats(min_value=0, max_value=1, exclude_max=True)
PLAIN = st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=5)
NAMES = st.text(st.characters(categories=("L", "N"), max_codepoint=0x3FFF), min_size=1, max_size=8)
CONFIGS = st.fixed_dictionaries({}, optional={
    "experiment": NAMES, "arch": NAMES, "options": st.dictionaries(NAMES, st.integers() | st.booleans(), max_size=3),
    "branches": st.sampled_from(["paper", "none"]) | st.lists(st.dictionaries(st.text(max_size=5), PLAIN), max_size=2),
    "method": st.sampled_from(METHODS), "direction": st.sampled_from(DIRECTIONS), "temperature": POSITIVE,
    "ce_weights": st.dictionaries(st.text(max_size=5), FINITE, max_size=3),
    "mimic_probability": st.floats(0, 1), "label_smoothing": SHARE, "label_noise": SHARE,
    "dataset": st.text(min_size=1, max_size=8), "image_size": st.none() | st.integers(8, 2**16),
    "train_per_class": st.none() | st.integers(1, 2**63 - 1), "epochs": st.integers(1, 2**63 - 1),
    "batch_size": st.integers(1, 2**63 - 1), "lr": RATE.filter(bool) | st.integers(1, 9), "momentum": SHARE,
    "weight_decay": RATE, "milestones": st.lists(st.integers(1, 2**64), max_size=3),
    "precision": st.sampled_from(PRECISIONS), "seed": st.integers(0, 2**64 - 1),
})  # fmt: skip
ANYTHING = st.recursive(
    PLAIN | st.floats(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)


def test_a_configuration_survives_its_file(drawn: Callable) -> None:
    @drawn
    @given(CONFIGS)
    @example({"weight_decay": -0.0})
    def check(values: dict) -> None:
        config = dhm.Config.from_dict(values)
        again = dhm.Config.from_dict(json.loads(json.dumps(config.to_dict())))
        backwards = dhm.Config.from_dict(dict(reversed(config.to_dict().items())))
        assert again == backwards == config
        assert again.digest == backwards.digest == config.digest
        assert dhm.Config.from_dict({**values, "experiment": "other"}).digest == config.digest
        assert Path(config.name).name == config.name

    check()


def test_two_configurations_are_two_runs(drawn: Callable) -> None:
    """Configurations that differ in anything but their experiment have two digests, equal ones have one."""

    @drawn
    @given(CONFIGS, CONFIGS)
    @example({"weight_decay": -0.0}, {"weight_decay": 0.0})
    @example({"label_noise": -0.0}, {})
    @example({"lr": 1}, {"lr": 1.0})
    @example({"milestones": []}, {"milestones": [1]})
    def check(one: dict, other: dict) -> None:
        first, second = (dhm.Config.from_dict({**values, "experiment": "x"}) for values in (one, other))
        assert (first.digest == second.digest) == (first == second)

    check()


def test_no_value_breaks_a_configuration(drawn: Callable) -> None:
    names = st.sampled_from([*dhm.Config().to_dict(), "no_setting"])

    @drawn
    @given(st.dictionaries(names, ANYTHING, min_size=1, max_size=3))
    @example({"options": {"depth": [math.nan]}})
    @example({"branches": [{"width": {"a": math.inf}}]})
    @example({"options": {"depth": {1: 2}}})
    @example({"dataset": ""})
    def check(values: dict) -> None:
        config, sentence = told(lambda: dhm.Config.from_dict(values))
        assert "\n" not in sentence
        if config:
            assert dhm.Config.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config

    check()


# ------------------------------------------------------------------------------------------------------------ loss


def reference(logits: np.ndarray, truth: np.ndarray, how: dict, weights: dict) -> float:
    """The objective in float64, an image, a head and a class at a time; 0 times infinity is 0."""
    heads, images, classes = logits.shape
    temperature, total = how.get("temperature", 1.0), 0.0

    def probabilities(z: np.ndarray) -> np.ndarray:
        shifted = np.exp(z - z.max())
        return shifted / shifted.sum()

    for n, q in itertools.product(range(images), range(heads)):
        said = probabilities(logits[q, n])
        smoothing = how.get("label_smoothing", 0.0)
        ce = sum(-t * np.log(p) for t, p in zip(truth[n] * (1 - smoothing) + smoothing / classes, said, strict=True)
                 if t > 0)  # fmt: skip
        if how["method"] != "baseline" or q == 0:
            total += weights.get(f"B{q}", 1.0) * ce / images
        for p in range(heads):
            allowed = {"both": p != q, "top_down": p < q, "bottom_up": p > q}[how.get("direction", "both")]
            if how["method"] == "dhm" and allowed:
                teacher, student = (probabilities(logits[i, n] / temperature) for i in (p, q))
                kl = sum(a * np.log(a / b) for a, b in zip(teacher, student, strict=True) if a > 0)
                total += weights.get(f"B{q}<-B{p}", 1.0) * temperature**2 * kl / images
    return total


def test_the_loss_is_the_double_loop(drawn: Callable) -> None:
    """With classes that are impossible to all heads, indices or probabilities as the target, and any weights."""

    @drawn
    @given(st.data())
    def check(data: st.DataObject) -> None:
        heads, images, classes = (data.draw(st.integers(*bounds)) for bounds in ((1, 4), (1, 3), (2, 5)))
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        logits = rng.normal(0, data.draw(st.sampled_from([0.1, 1.0, 5.0])), (heads, images, classes))
        impossible = data.draw(st.integers(0, classes - 1)) if data.draw(st.booleans()) else 0
        logits[..., classes - impossible :] = -np.inf if impossible else logits[..., classes:]
        possible = classes - impossible
        soft = data.draw(st.booleans())
        truth = np.zeros((images, classes))
        if soft:
            truth[:, :possible] = rng.dirichlet(np.ones(possible), images)
        else:
            truth[np.arange(images), rng.integers(0, possible, images)] = 1
        how = {
            "method": data.draw(st.sampled_from(METHODS)), "direction": data.draw(st.sampled_from(DIRECTIONS)),
            "temperature": data.draw(st.sampled_from([0.5, 1.0, 4.0])),
            "label_smoothing": 0.0 if impossible else data.draw(st.sampled_from([0.0, 0.1, 0.9])),
        }  # fmt: skip
        names = [f"B{q}" for q in range(heads)] + [f"B{q}<-B{p}" for q in range(heads) for p in range(heads) if p != q]
        weights = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from([0.0, 0.5, 2.0])))
        loss = dhm.DHMLoss(
            **how, ce_weights={name: w for name, w in weights.items() if "<" not in name},
            mimic_weights={name: w for name, w in weights.items() if "<" in name},
        )  # fmt: skip
        given_logits = {f"B{q}": torch.from_numpy(logits[q]) for q in range(heads)}
        target = torch.from_numpy(truth) if soft else torch.from_numpy(truth.argmax(axis=1))
        total, terms = loss(given_logits, target)
        assert total.item() == pytest.approx(reference(logits, truth, how, weights), rel=1e-9, abs=1e-9)
        assert all(math.isfinite(value) for value in terms.values())

    check()


# ----------------------------------------------------------------------------------------------------------- lists

SIGNS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="/\\\u2028\u2029")
WORDS = st.text(SIGNS, min_size=1, max_size=6).map(str.strip).filter(bool)


def test_a_list_is_read_as_the_csv_module_reads_it(drawn: Callable, tmp_path: Path) -> None:
    """Names and classes with any sign in them, as csv writes them: what is read is what was written."""
    (tmp_path / "val").mkdir()

    @drawn
    @given(
        st.lists(WORDS, min_size=1, max_size=4, unique=True), st.data(), st.sampled_from(",;\t"),
        st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    )  # fmt: skip
    def check(stems: list[str], data: st.DataObject, delimiter: str, end: str, encoding: str) -> None:
        names = [f"{stem}.png" for stem in stems]
        classes = sorted(data.draw(st.sets(WORDS, min_size=1, max_size=3)))
        labels = [data.draw(st.sampled_from(classes)) for _ in names]
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(zip(names, labels, strict=True))
        (tmp_path / "val.txt").write_bytes(text.getvalue().encode(encoding))
        assert flat_labels(tmp_path, names, classes) == labels

    check()


def test_a_class_of_quotation_marks(tmp_path: Path) -> None:
    """Found by the one above."""
    (tmp_path / "val").mkdir()
    (tmp_path / "val.txt").write_text('0.png,""""\n')
    assert flat_labels(tmp_path, ["0.png"], ['"']) == ['"']


def test_any_bytes_are_a_list_or_told(drawn: Callable, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    names = ["a.png", "b b.png", 'c"c.png']
    lines = st.lists(st.sampled_from([*names, "a", "n1", "1", "-1", " ", ",", "\t", '"', "\n", "\ufeff", "\0"]))

    @drawn
    @given(st.binary(max_size=60) | lines.map("".join).map(str.encode), st.sampled_from([(), ("n1", "n2")]))
    @example(b'a.png,\xb2\nb b,n1\nc"c,n2\n', ("n1", "n2"))
    @example('a.png,²\nb b,n1\nc"c,٣\n'.encode(), ("n1", "n2"))
    @example(b'b b,n1\nc"c,n2\na.png,' + b"9" * 5000, ("n1", "n2"))
    def check(content: bytes, classes: tuple[str, ...]) -> None:
        (tmp_path / "val.txt").write_bytes(content)
        found, sentence = told(lambda: flat_labels(tmp_path, names, classes))
        assert len(found) == len(names) if found else sentence.startswith(str(tmp_path))

    check()


# --------------------------------------------------------------------------------------------------------- records


def predictions() -> Predictions:
    rows = np.zeros((2, 5))
    return Predictions(("B0", "B1"), np.arange(5), rows.astype(int), rows, rows, rows.astype(int))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dhm.RunRecord:
    """A finished record without a seal, so that its readers have to see for themselves."""
    record = dhm.RunRecord.read(write_run(tmp_path_factory.mktemp("whole"), small_config(), 50))
    record.write_json("env.json", [{"started": "now", "data": {}}])
    record.write_predictions("last", predictions())
    checkpoints.save(record.folder / "last.pt", {"net": {"w": torch.arange(3.0)}, "at": {"epoch": 1}})
    return record


READERS = {name: lambda record: record.predictions("last") for name in ["predictions-last.npz"]} | {
    "config.json": lambda record: dhm.RunRecord.read(record.folder), "env.json": lambda record: record.environment,
    "metrics.jsonl": lambda record: record.metrics, "result.json": lambda record: record.result,
    "last.pt": lambda record: record.checkpoint(), "SHA256SUMS": lambda record: record.sealed,
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_in_a_record_are_read_or_told(name: str, drawn: Callable, whole: dhm.RunRecord) -> None:
    """Bytes of any kind, JSON of any form, and the true content with some bytes changed, dropped or put in."""
    file = whole.folder / name
    true = file.read_bytes() if file.is_file() else b"0" * 64 + b"  config.json\n"

    def damaged(place: int, dropped: int, put: bytes) -> bytes:
        place %= len(true) + 1
        return true[:place] + put + true[place + dropped :]

    edits = st.builds(damaged, st.integers(0, len(true)), st.integers(0, 9), st.binary(max_size=9))
    written = ANYTHING.map(lambda value: json.dumps(value).encode())

    @drawn
    @given(st.binary(max_size=99) | edits | written)
    @example(b"[" * 100_000)
    @example(b"")
    def check(content: bytes) -> None:
        file.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's reader on the protocols of pickle
            value, sentence = told(lambda: READERS[name](whole))
            if sentence:
                assert whole.folder.name in sentence
                assert "\n" not in sentence
            elif name == "predictions-last.npz":
                value.summary()
            elif name in ("result.json", "metrics.jsonl"):
                dhm.load_runs(whole.folder)

    try:
        check()
    finally:
        file.write_bytes(true) if name != "SHA256SUMS" else file.unlink()
    assert name in (*FILES, "last.pt", "SHA256SUMS")
