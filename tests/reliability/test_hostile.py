"""Files made to harm: none runs code, leaves the store's folder or fills the memory; each is refused in a sentence."""

import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import papermill.translators
import pytest
import torch
from conftest import small_config, write_image, write_run

import dhm
from dhm import notebook
from dhm.__main__ import main
from dhm.analysis.evidence import kept
from dhm.data import load
from dhm.records import checkpoints, seal
from dhm.records.store import find
from dhm.records.verification import DAMAGED, verify

ROOM = 2**30
"""Bytes of address space a hostile file may ask for at most; each here asks for many times as much."""
CPU = {"accelerator": "cpu", "progress": False}


@pytest.fixture
def bounded() -> Iterator[None]:
    """No more memory than `ROOM` beside what there is: whatever asks for it gets a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (there + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder of run records with one in it, beside a file that is none of theirs."""
    (tmp_path / "victim").write_text("untouched")
    write_run(tmp_path / "runs", small_config(), 50)
    return tmp_path / "runs"


def only(folder: Path) -> Path:
    """The folder of the only record."""
    return next(folder.rglob("config.json")).parent


# ------------------------------------------------------------------------------------------------ names and links


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", ".x", "a\\b", "a\0b", "a\nb", "x" * 300])
@pytest.mark.parametrize("field", ["experiment", "arch", "option", "value"])
def test_a_name_that_leads_elsewhere_names_no_run(field: str, name: str) -> None:
    if field == "arch" and name == "..":
        return  # with options behind it, it is a plain name
    changes = {
        "experiment": {"experiment": name}, "arch": {"arch": name},
        "option": {"options": {name: 1}}, "value": {"options": {"depth": name}},
    }[field]  # fmt: skip
    if name in ("..", ".x") and field in ("option", "value"):
        config = small_config(**changes)  # a dot within a name leads nowhere
        assert Path(config.name).name == config.name
        return
    with pytest.raises(dhm.InputError, match="must be a plain folder name, not"):
        small_config(**changes)


@pytest.mark.parametrize("command", [["keep"], ["evaluate"], ["verify"], ["train", "--config"]])
def test_a_record_of_another_name_writes_nowhere(
    command: list[str], store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("DHM_RUNS", str(store))
    record = only(store)
    (record / "config.json").write_text('{"arch": "cifar_resnet", "options": {"depth": "8/../../../../out"}}')
    before = sorted(store.parent.rglob("*"))
    target = record / "config.json" if command[0] == "train" else record
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `keep` passes it over with a warning
        assert main([*command, str(target)]) == 2
    assert sorted(store.parent.rglob("*")) == before
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["config.json", "env.json", "metrics.jsonl", "result.json", "predictions-last.npz"])
def test_a_link_out_of_a_record_is_not_followed(name: str, store: Path) -> None:
    record = only(store)
    (record / name).unlink(missing_ok=True)
    (record / name).symlink_to("/etc/passwd")
    state, told = verify(record)
    assert state == DAMAGED
    assert f"{record / name} is a link out of the record" in told[0]


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", "a/b", "", "a\0b"])
def test_a_seal_names_files_of_its_folder_alone(name: str, store: Path) -> None:
    record = only(store)
    (record / seal.NAME).write_bytes(f"{'0' * 64}  {name}\n".encode())
    state, told = verify(record)
    assert state == DAMAGED
    assert "its lines are not those of sha256sum" in told[0]


@pytest.mark.parametrize("name", [".lock", "last.pt", "env.json", "training.log", "tensorboard"])
def test_a_training_writes_through_no_link(name: str, store: Path) -> None:
    record = only(store)
    (record / "result.json").unlink()
    (record / name).symlink_to(store.parent / "victim")
    with pytest.raises(dhm.InputError, match="is a link") as told:
        dhm.fit(small_config(), runs_dir=store, **CPU)
    assert name in str(told.value)
    assert (store.parent / "victim").read_text() == "untouched"


def test_a_run_set_aside_brings_no_other_file_with_it(store: Path) -> None:
    aside = only(store)
    (aside / "result.json").unlink()
    (aside / "env.json").symlink_to("/etc/passwd")
    torch.save({}, aside / "last.pt")
    with pytest.raises(dhm.InputError, match="is a link out of the record"):
        dhm.fit(small_config(), runs_dir=store.parent / "other", resume_from=aside, **CPU)


@pytest.mark.parametrize("name", ["config.json", "env.json", "metrics.jsonl", "SHA256SUMS", "predictions-last.npz"])
def test_a_pipe_is_not_waited_for(name: str, store: Path) -> None:
    record = only(store)
    (record / name).unlink(missing_ok=True)
    os.mkfifo(record / name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = list(find(store))
    assert bool(found) == (name != "config.json")
    assert all("no regular file" in str(warning.message) for warning in told)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "SHA256SUMS", "result.json"])
@pytest.mark.usefixtures("bounded")
def test_a_file_without_end_is_not_read(name: str, store: Path) -> None:
    record = only(store)
    with open(record / name, "ab") as file:
        file.truncate(2**35)
    state, told = verify(record)
    assert state == DAMAGED
    assert "has 34,359,738,368 bytes, more than the 268,435,456 that are read" in told[0]


# ---------------------------------------------------------------------------------------------------------- arrays


class Runs:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def npy(shape: tuple[int, ...], content: bytes, kind: str = "<f4") -> bytes:
    """An array's file whose header claims this shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def archive(*parts: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=9) as opened:
        for name, content in parts:
            opened.writestr(name, content)
    return file.getvalue()


def objects(marker: Path) -> bytes:
    file = io.BytesIO()
    np.savez(file, labels=np.array([Runs(f"touch {marker}")], dtype=object))
    return file.getvalue()


def lying(mebibytes: int) -> bytes:
    """An archive of zeros whose directory says that they unpack to no more than they are packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = bytearray(archive(("labels.npy", one * mebibytes + packer.flush()), method=zipfile.ZIP_STORED))
    for method in (8, content.index(b"PK\1\2") + 10):  # in the member's header and in the directory
        content[method] = zipfile.ZIP_DEFLATED
    return bytes(content)


def huge(size: int) -> bytes:
    """An archive whose directory says that a short member unpacks to as many bytes."""
    content = archive(("labels.npy", bytes(1000)))
    return content.replace(struct.pack("<I", 1000), struct.pack("<I", size))


ARRAYS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "objects": (objects, "holds objects, which may run code"),
    "10^9 values": (lambda _: archive(("labels.npy", npy((10**9,), b"1234"))), "claims 1,000,000,000 values"),
    "10^30 values": (lambda _: archive(("labels.npy", npy((10**10,) * 3, b"1234"))), "claims 1,0"),
    "a negative shape": (lambda _: archive(("labels.npy", npy((-1, -1), b"1234"))), "claims -1 values in a row"),
    "a bomb": (lambda _: huge(2**32 - 2), "its arrays take 4,294,967,294 bytes"),
    "a bomb that lies": (lambda _: lying(2048), "Bad CRC-32"),
    "bzip2": (lambda _: archive(("labels.npy", bytes(2**20)), method=zipfile.ZIP_BZIP2), "compressed as numpy never"),
    "lzma": (lambda _: archive(("labels.npy", bytes(2**20)), method=zipfile.ZIP_LZMA), "compressed as numpy never"),
    "no arrays": (lambda _: archive(("readme", b"hello")), "damaged or no file of arrays"),
    "numbers for words": (
        lambda _: archive(*((f"{name}.npy", npy((1,), b"1234"))
                            for name in ("heads", "labels", "predicted", "confidence", "nll", "rank"))),
        "not those of one table",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_made_to_harm(kind: str, store: Path, request: pytest.FixtureRequest) -> None:
    make, sentence = ARRAYS[kind]
    marker, record = store / "ran", dhm.RunRecord.read(only(store))
    (record.folder / "predictions-last.npz").write_bytes(make(marker))
    request.getfixturevalue("bounded")
    with pytest.raises(dhm.InputError, match=rf"predictions-last\.npz .*({sentence})"):
        record.predictions()
    assert not marker.exists()


# ----------------------------------------------------------------------------------------------------- checkpoints


def _int(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little")


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _call(function: str, *arguments: bytes) -> bytes:
    return b"c" + function.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def _tuple(*values: int) -> bytes:
    return b"(" + b"".join(map(_int, values)) + b"t"


def tensor(stored: int, shape: int, stride: int) -> bytes:
    """A tensor in pickle: how many values its storage claims, and which of them it shows."""
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + _int(stored) + b"tQ"
    hooks = _call("collections OrderedDict")
    return _call("torch._utils _rebuild_tensor_v2", storage, _int(0), _tuple(shape), _tuple(stride), b"\x89", hooks)


def checkpoint(value: bytes, storage: bytes = bytes(4000)) -> bytes:
    """A file as torch writes it, of one entry."""
    parts = {"data.pkl": b"\x80\x02}" + _text("x") + value + b"s.", "byteorder": b"little", "data/0": storage,
             "version": b"3\n"}  # fmt: skip
    return archive(*((f"a/{name}", content) for name, content in parts.items()), method=zipfile.ZIP_STORED)


def safetensors(header: str, content: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", length or len(header)) + header.encode() + content


RANGE = _call("builtins range", _int(10**9))
META = _call(
    "torch._utils _rebuild_meta_tensor_no_storage", b"ctorch\nfloat32\n", _tuple(10**10), _tuple(1), b"\x89"
)  # fmt: skip
CHECKPOINTS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "a command": (lambda m: checkpoint(_call("posix system", _text(f"touch {m}"))), "posix.system, which may run code"),
    "code": (lambda m: checkpoint(_call("builtins exec", _text(f"open({str(m)!r}, 'w')"))), "which may run code"),
    "an old pickle": (lambda m: pickle.dumps({"x": Runs(f"touch {m}")}, 2), "damaged or no checkpoint"),
    "a storage of 10^10": (lambda _: checkpoint(tensor(10**10, 10**10, 1)), "does not match expected size"),
    "a view of 10^10": (lambda _: checkpoint(tensor(1000, 10**10, 1)), "not resizable"),
    "one value 10^10 times": (lambda _: checkpoint(tensor(1000, 10**10, 0)), "x claims 10,000,000,000 values"),
    "10^10 values nowhere": (lambda _: checkpoint(META), "x claims 10,000,000,000 values"),
    "a set of 10^9": (lambda _: checkpoint(_call("builtins set", RANGE)), "a range of 1,000,000,000 steps"),
    "a frozen set": (lambda _: checkpoint(_call("builtins frozenset", RANGE)), "a range of 1,000,000,000 steps"),
    "a word of 2 GB": (lambda _: checkpoint(b"X\xff\xff\xff\x7f"), "damaged or no checkpoint"),
    "brackets without end": (lambda _: checkpoint(b"(" * 9999), "damaged or no checkpoint"),
    "a compressed part": (lambda _: archive(("a/data.pkl", bytes(9**8))), "a part of it is compressed"),
    "safetensors of 10^10": (
        lambda _: safetensors('{"x":{"dtype":"F32","shape":[10000000000],"data_offsets":[0,40000000000]}}'), "damaged"
    ),
    "safetensors of 4 for 10^10": (
        lambda _: safetensors('{"x":{"dtype":"F32","shape":[10000000000],"data_offsets":[0,4]}}', bytes(4)), "damaged"
    ),
    "a header of 10^15": (lambda _: safetensors("{}", bytes(99), 10**15), "damaged"),
    "a header without end": (lambda _: safetensors('{"a":' * 100000), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_made_to_harm(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make, sentence = CHECKPOINTS[kind]
    file, marker = tmp_path / "x.pth", tmp_path / "ran"
    file.write_bytes(make(marker))
    request.getfixturevalue("bounded")
    with pytest.raises(dhm.InputError, match=sentence) as told:
        checkpoints.load(file)
    assert str(told.value).startswith(f"{file} ")
    assert "MemoryError" not in str(told.value)
    assert not marker.exists()


def test_the_plain_checkpoint_is_read(tmp_path: Path) -> None:
    """What the ones above are made from, so that it is not their form that is refused."""
    (tmp_path / "x.pth").write_bytes(checkpoint(tensor(1000, 1000, 1), np.arange(1000, dtype="<f4").tobytes()))
    assert torch.equal(checkpoints.load(tmp_path / "x.pth")["x"], torch.arange(1000.0))
    (tmp_path / "x.pth").write_bytes(checkpoint(_call("builtins set", _call("builtins range", _int(3)))))
    assert checkpoints.load(tmp_path / "x.pth")["x"] == {0, 1, 2}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[dhm.RunRecord, dict]:
    """A run with a whole checkpoint of its last epoch but without its result, and what that checkpoint holds."""
    record = dhm.fit(small_config(epochs=1), runs_dir=tmp_path_factory.mktemp("stopped"), **CPU)
    (record.folder / "result.json").unlink()
    (record.folder / seal.NAME).unlink()
    return record, checkpoints.load(record.folder / "last.pt")


CRAFTED: dict[str, Callable[[dict], dict]] = {
    "no network": lambda state: {**state, "net": 5},
    "words for weights": lambda state: {**state, "net": dict.fromkeys(state["net"], "0.1")},
    "another place": lambda state: {**state, "at": {"epoch": 0}, "more": 1},
    "an unknown place": lambda state: {**state, "at": {**state["at"], "run": "touch x"}},
    "a place that is a word": lambda state: {**state, "at": "here"},
    "no optimizer": lambda state: {**state, "optimizer": []},
    "another optimizer": lambda state: {**state, "optimizer": {"state": {}, "param_groups": [{}]}},
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_a_whole_checkpoint_of_something_else_is_not_trained_on(kind: str, stopped: tuple[dhm.RunRecord, dict]) -> None:
    record, state = stopped
    checkpoints.save(record.folder / "last.pt", CRAFTED[kind](state))
    with pytest.raises(dhm.InputError, match=r"last\.pt (is no checkpoint of|does not fit)"):
        dhm.fit(record.config, runs_dir=record.folder.parents[1], **CPU)
    assert record.result is None


# ---------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", "\0\0", "layer\n" + '"' * 9, "=cmd|' /C calc'!A0", "x,y\n1\n1,2,3"]
)
@pytest.mark.parametrize(("name", "read"), [("gradients.csv", kept.gradients), ("likeness.csv", kept.likenesses)])
def test_a_kept_table_that_is_none(content: str, name: str, read: Callable, store: Path) -> None:
    (only(store) / name).write_text(content)
    with pytest.raises(dhm.InputError, match=rf"{name} is no table of "):
        read([dhm.RunRecord.read(only(store))])


# ---------------------------------------------------------------------------------------------------------- images


def bomb(file: Path, side: int = 20_000) -> None:
    """A PNG of a few bytes that says it is 400 million pixels."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    file.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(9999))) + part(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("augment", ["crop", "scale"])
def test_a_decompression_bomb(augment: str, split: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """Refused; but of a streamed training set it is left out, and the record says so."""
    bomb(folder / split / "n01" / "bomb.png")
    config = small_config(
        arch="imagenet_resnet", options={"depth": 10, "base": 8}, dataset=str(folder), augment=augment, image_size=32,
        classes=None, train_per_class=None, epochs=1, milestones=(), batch_size=8,
    )  # fmt: skip
    request.getfixturevalue("bounded")
    if (augment, split) == ("scale", "train"):
        images = load(config, workers=0).train
        with pytest.warns(UserWarning, match=r"left out of the training: .*bomb\.png is no readable image: .*bomb"):
            assert sum(len(labels) for _, labels in images.train_batches(8, 0, 0, augment="scale")) == len(images) - 1
        return
    with pytest.raises(
        dhm.InputError, match=r"bomb\.png is no readable image: Image size \(400000000 pixels\) exceeds"
    ):
        list(load(config, workers=0).test.test_batches(8))


def test_a_picture_is_read_by_no_other_program(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript under a picture's name, which Pillow hands to whatever program is called gs."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {programs / 'ran'}\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    (folder / "val" / "n01" / "x.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(x) run\nshowpage\n%%EOF\n"
    )
    with pytest.raises(dhm.InputError, match=r"x\.jpg is no readable image"):
        load(small_config(dataset=str(folder), classes=None, train_per_class=None))
    assert not (programs / "ran").exists()


def test_links_of_images_lead_anywhere_but_not_without_end(folder: Path, tmp_path_factory) -> None:
    """Images and folders elsewhere are anyone's way to arrange a set; forty folders with two links each to the next
    stand for 10^12 images."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_image(elsewhere / "more" / "a.png", 1)
    (folder / "train" / "n01" / "more").symlink_to(elsewhere / "more")
    (folder / "train" / "n01" / "b.png").symlink_to(elsewhere / "more" / "a.png")
    config = small_config(dataset=str(folder), classes=None, train_per_class=None)
    assert len(load(config).train) == 3 * 7 + 2
    for level in range(40):
        (elsewhere / f"{level}").mkdir()
        for name in ("a", "b"):
            (elsewhere / f"{level}" / name).symlink_to(elsewhere / f"{level + 1}")
    (folder / "train" / "n01" / "deep").symlink_to(elsewhere / "0")
    with pytest.raises(dhm.InputError, match="lies 10 folders deep in its class"):
        load(config)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("v0.JPEG n01" + " 1" * 5000, "line 1 has more than 4,096 characters"), (None, "more than the 268,435,456")],
)
@pytest.mark.usefixtures("bounded")
def test_a_list_without_end(content: str | None, sentence: str, folder: Path) -> None:
    for file in sorted((folder / "val").rglob("*.JPEG")):
        file.rename(folder / "val" / file.name)
    for name in ("n01", "n02", "n03"):
        (folder / "val" / name).rmdir()
    (folder / "val.txt").write_text(content or "")
    if content is None:
        with open(folder / "val.txt", "ab") as file:
            file.truncate(2**35)
    with pytest.raises(dhm.InputError, match=sentence):
        load(small_config(dataset=str(folder), classes=None, train_per_class=None))


# ------------------------------------------------------------------------------------------------------- notebooks

NASTY = ['x"; import os; os.system("touch ran")  #', "x\\", 'x\\"\nopen("ran", "w")', "{}", "'''", "\u2028", "\x00"]


@pytest.mark.parametrize("value", NASTY)
def test_a_word_in_a_notebook_stays_a_word(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As papermill writes it into the notebook's cell and Python reads it there, alone and in a list."""
    monkeypatch.chdir(tmp_path)
    for text, default in ((value, ""), (repr([value, {value: 1}]), [])):
        taken, cell = notebook._value("x", text, default), {}
        exec(papermill.translators.PythonTranslator.codify({"x": taken}), cell)
        assert cell["x"] == taken
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value",
    ['[{\'"+__import__("os").system("touch ran")+"\'}]', "[('a', 1)]", "[b'a']", "[1j]", "[{1: 2}]", "[...]"],
)
def test_a_value_that_would_be_written_as_code(value: str, capsys: pytest.CaptureFixture) -> None:
    """papermill writes sets, tuples, bytes and what else is none of JSON's as it is printed, in quotation marks."""
    assert main(["notebook", "table1_cifar100", "-p", "seeds", value]) == 2
    assert "the parameter seeds must be a list like []" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["../../x", "x.py", ".bashrc", "notebooks/table1_cifar100.ipynb"])
def test_a_notebook_is_written_over_nothing_else(output: str, capsys: pytest.CaptureFixture) -> None:
    place = str(dhm.paths.root() / output)
    assert main(["notebook", "table1_cifar100", "-o", place]) == 2
    assert ("must end in .ipynb" in (told := capsys.readouterr().err)) != ("among the committed notebooks" in told)


# --------------------------------------------------------------------------------------------------------- network

DENIED = """
import sys
def deny(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        if not (event in ("socket.connect", "socket.bind") and isinstance(arguments[1], (str, bytes))):
            raise PermissionError(f"{event} {arguments}")
sys.addaudithook(deny)
from dhm.__main__ import main
import socket
try:
    socket.create_server(("127.0.0.1", 0))
except OSError as error:
    assert isinstance(error.__context__, PermissionError)
else:
    raise SystemExit("the hook hears nothing")
sys.exit(main(sys.argv[1:]) or main([*sys.argv[1:], "--augment", "scale", "--image-size", "16", "--workers", "0"]))
"""
"""Addresses that are words are those of sockets in the file system, by which a process speaks to its children."""


def test_a_training_speaks_to_nobody(tmp_path: Path) -> None:
    """Nothing listens and nothing is fetched, resident or streamed."""
    command = [sys.executable, "-c", DENIED, "train", "--preset", "smoke", "--runs-dir", str(tmp_path),
               "--accelerator", "cpu", "--epochs", "1"]  # fmt: skip
    child = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert child.returncode == 0, child.stderr
    assert len(list(tmp_path.rglob("result.json"))) == 2
