"""A captured step is the eager one: compiled once, up to rounding, and to the bit over a stop."""

import copy
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import small_config
from lightning_fabric import Fabric
from test_resume import assert_same, outcome
from torch import nn
from torch._dynamo import lookup_backend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import dhm
from dhm.branches import BranchedNet, Plan
from dhm.models import Blueprint
from dhm.models.staged import Modules, conv3x3, pooled_head
from dhm.records import checkpoints
from dhm.training import capture, step
from dhm.training.capture import Objective
from dhm.training.step import Trainer, prepare
from dhm.zoo import plan_of

CPU = torch.device("cpu")
compiles = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler to capture a step with"
)
NETS = {
    "cifar_resnet": ({"depth": 8}, 8), "wrn": ({"depth": 10, "width": 1, "dropout": 0.3}, 8),
    "densenet": ({"depth": 10, "growth": 2, "bottleneck": True, "dropout": 0.2}, 8),
    "imagenet_resnet": ({"depth": 10, "base": 4}, 32), "mobilenet": ({"width": 0.25}, 32),
}  # fmt: skip
"""The smallest network of each family, and images it takes."""
WAYS = {
    "baseline": {"method": "baseline"}, "dsl": {"method": "dsl", "ce_weights": {"B1": 0.5}}, "both": {},
    "top_down": {"direction": "top_down", "temperature": 3.0},
    "bottom_up": {"direction": "bottom_up", "label_smoothing": 0.1, "mimic_weights": {"B0<-B1": 2.0}},
}  # fmt: skip
ONCE = list(zip(NETS, WAYS, strict=True))
"""Every family, method and direction once; the long version takes all together."""
SHARDS = ((4, None, 1.0), (4, ["B1"], 0.5), (3, ["B2"], 0.75), (4, [], 1.0), (4, ["B2"], 2.0))
"""Images, branches drawn for the mimicking, and its scale; 4 is the whole shard."""


@dataclass(frozen=True)
class Tiny(Blueprint):
    """Two convolutions, batch norm and dropout: little for a C++ compiler to do."""

    @property
    def depths(self) -> tuple[int, ...]:
        return (1,)

    def stem(self) -> tuple[Modules, int]:
        return {"conv1": conv3x3(3, 4), "bn1": nn.BatchNorm2d(4), "relu": nn.ReLU(inplace=True)}, 4

    def stage(self, index: int, channels: int, depth: int, width: float) -> tuple[Modules, int]:
        return {"layer1": nn.Sequential(conv3x3(4, 8, 2), nn.ReLU(inplace=True), nn.Dropout(0.3))}, 8

    def head(self, channels: int) -> Modules:
        return pooled_head(channels, self.num_classes)


TINY = Plan(Tiny(), (dhm.BranchSpec("B1", 0),))


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Whatever is compiled, without the C++ of it: the graphs, forward and backward, run by torch's own kernels."""
    seen: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        seen.append(graph)
        return lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(capture, "_see_compiler", lambda device: None)
    monkeypatch.setattr(
        capture, "compiled", lambda run, device: torch.compile(run, fullgraph=True, dynamic=False, backend=backend)
    )
    return seen


def furthest(net: BranchedNet, loss: dhm.DHMLoss, size: int, rounding: bool = False) -> float:
    """The largest difference, relative to 1 or to the value, of losses, terms, gradients and running statistics over
    a few steps: of captured ones to eager ones, or of eager ones to eager ones in double precision."""
    worst = 0.0
    nets = (net.train(), copy.deepcopy(net).train())
    if rounding:
        nets[1].double()
    wholes = (None, None if rounding else 4)
    eager, captured = (Objective(n, loss, whole, CPU) for n, whole in zip(nets, wholes, strict=True))
    rng = torch.Generator().manual_seed(1)
    for number, (images, mimicking, loss.mimic_scale) in enumerate(SHARDS):
        x = torch.randn(images, 3, size, size, dtype=torch.float64, generator=rng)
        x = x.to(memory_format=torch.channels_last)
        y = torch.randint(0, 10, (images,), generator=rng)
        taking = [b for b in mimicking if b in net.heads] if mimicking else mimicking
        found = []
        for objective in (eager, captured):
            torch.manual_seed(number)  # for dropout
            total, figures = objective(x.to(next(objective.parameters()).dtype), y, taking)
            gradients = torch.autograd.grad(total, list(objective.net.parameters()))
            values = [total, *figures.values(), *gradients, *objective.net.buffers()]
            found.append((list(figures), [value.detach().double() for value in values]))
        (names, ours), (others, theirs) = found
        assert names == others
        assert all(map(torch.isfinite, (value.sum() for value in ours)))
        worst = max(
            worst, *(float(((a - b).abs() / a.abs().clamp(min=1)).max()) for a, b in zip(ours, theirs, strict=True))
        )
    return worst


def zoo_net(family: str, method: str, dtype: torch.dtype) -> tuple[BranchedNet, int]:
    options, size = NETS[family]
    torch.manual_seed(0)
    net = dhm.create_model(family, 10, branches="none" if method == "baseline" else "paper", **options)
    return net.to(dtype).to(memory_format=torch.channels_last), size


@pytest.mark.parametrize(("family", "way"), list(itertools.product(NETS, WAYS)))
def test_compiled_once_it_is_the_eager_step(family: str, way: str, graphs: list, long: bool) -> None:
    """Through a smaller batch, other branches and other scales."""
    if not long and (family, way) not in ONCE:
        pytest.skip("long")
    loss = dhm.DHMLoss(**WAYS[way])
    net, size = zoo_net(family, loss.method, torch.float64)
    assert furthest(net, loss, size) < 1e-10
    assert len(graphs) == 1


@compiles
def test_in_code_of_its_own_too() -> None:
    """Compiled as runs are; in single precision it is below, within a run."""
    torch.manual_seed(0)
    assert furthest(TINY.build(10).double(), dhm.DHMLoss(), 8) < 1e-10


@compiles
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("family", NETS)
def test_every_family_in_code_of_its_own(family: str, dtype: torch.dtype, long: bool) -> None:
    """MobileNet in single precision as near as the eager step is to the one in double precision: its batch norm, of
    four values a channel, makes much of little."""
    if not long:
        pytest.skip("long: about a minute a network")
    net, size = zoo_net(family, "dhm", dtype)
    most = 1e-10 if dtype == torch.float64 else 1e-4
    if (family, dtype) == ("mobilenet", torch.float32):
        most = furthest(copy.deepcopy(net), dhm.DHMLoss(), size, rounding=True)
    found = furthest(net, dhm.DHMLoss(), size)
    print(f"{family} {dtype}: {found:.1e}, at most {most:.1e}")
    assert found < most


RUN = small_config(classes=10, batch_size=100, mimic_probability=0.5, lr=0.02, seed=1)
"""640 images in batches of 100, the last of 40, and a branch that mimics in some epochs. The network is tiny."""


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "plan_of", lambda config: TINY)


def fit(folder: Path, config: dhm.Config = RUN, **options) -> dhm.RunRecord:
    return dhm.fit(config, runs_dir=folder, accelerator="cpu", progress=False, **options)


def assert_close(ours: dhm.RunRecord, theirs: dhm.RunRecord) -> None:
    """The same names everywhere, and the same figures up to rounding."""
    first, second = (checkpoints.load(record.folder / "last.pt") for record in (ours, theirs))
    assert list(first["net"]) == list(second["net"])
    for name, value in first["net"].items():
        torch.testing.assert_close(value, second["net"][name], rtol=1e-3, atol=1e-4)
    for line, other in zip(ours.metrics, theirs.metrics, strict=True):
        assert list(line["train"]) == list(other["train"])
        assert line["train"] == pytest.approx(other["train"], rel=1e-4, abs=1e-4)


def test_a_run_is_compiled_once(tmp_path: Path, graphs: list) -> None:
    eager, record = fit(tmp_path / "eager"), fit(tmp_path, compile=True)
    assert len(graphs) == 1
    assert len({tuple(line["mimicking"]) for line in record.metrics}) > 1
    assert [run.environment[0]["compiled"] for run in (eager, record)] == [False, True]
    assert record.folder.name == eager.folder.name
    assert_close(record, eager)


@contextmanager
def stopped_at(epoch: int, number: int) -> Iterator[None]:
    """Trainings break off there, a checkpoint behind them at every step."""
    whole = Trainer.step

    def broken(self: Trainer, *where: int | torch.Tensor) -> object:
        if where[:2] == (epoch, number):
            raise KeyboardInterrupt
        return whole(self, *where)

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Trainer, "step", broken)
        yield


@pytest.mark.parametrize("first", [True, False])
def test_checkpoints_go_into_each_other(first: bool, tmp_path: Path, graphs: list) -> None:
    with stopped_at(1, 3):
        fit(tmp_path, compile=first, checkpoint_every=0.0)
    record = fit(tmp_path, compile=not first)
    assert [start["compiled"] for start in record.environment] == [first, not first]
    assert_close(record, fit(tmp_path / "eager"))


@compiles
def test_stopped_it_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool) -> None:
    """In code of its own; in the long version compiled anew after the stop."""
    config = RUN.replace(epochs=2)
    whole = fit(tmp_path / "whole", config, compile=True)
    with stopped_at(1, 2):
        fit(tmp_path, config, compile=True, checkpoint_every=0.0)
    if long:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    record = fit(tmp_path, config, compile=True)
    assert [start["from"] for start in record.environment] == [[0, 0], [1, 2]]
    assert_same(outcome(record), outcome(whole))
    assert_close(record, fit(tmp_path / "eager", config))


@compiles
@pytest.mark.parametrize("family", NETS)
def test_every_family_goes_on_with_the_same_bits(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    """In code of its own: 100 images in batches of 40, stopped in the second epoch."""
    if not long:
        pytest.skip("long: about a minute a network")
    monkeypatch.setattr(step, "plan_of", plan_of)
    options, size = NETS[family]
    config = RUN.replace(
        arch=family, options=options, image_size=size, train_per_class=10, batch_size=40, epochs=2, milestones=(1,)
    )
    whole = fit(tmp_path / "whole", config, compile=True)
    with stopped_at(1, 1):
        fit(tmp_path, config, compile=True, checkpoint_every=0.0)
    record = fit(tmp_path, config, compile=True)
    assert [start["from"] for start in record.environment] == [[0, 0], [1, 1]]
    assert_same(outcome(record), outcome(whole))


@mock.patch.dict(os.environ)  # in which Fabric leaves what programs of later tests would take for a launcher's
@pytest.mark.parametrize(("precision", "accumulate", "most"), [("bf16-mixed", 1, 2e-2), ("32-true", 3, 1e-4)])
def test_through_fabric(precision: str, accumulate: int, most: float, graphs: list) -> None:
    """DDP and half precision; and a batch in uneven shards: of 34, 33 and 33 images, of 14, 13 and 13."""
    config = RUN.replace(precision=precision, lr=1e-4)
    trainers = []
    for compile in (False, True):
        fabric = Fabric(accelerator="cpu", devices=1, strategy="ddp", precision=precision)
        fabric.launch()
        trainers.append(prepare(config, fabric, accumulate=accumulate, compile=compile))
    try:
        batches = list(trainers[0].batches(0))
        for number in (0, 6):
            for shards in zip(*(trainer.step(0, number, *batches[number]) for trainer in trainers), strict=True):
                (images, ours), (others, theirs) = shards
                assert (images, list(ours)) == (others, list(theirs))
                for name, value in ours.items():
                    if not name.startswith("accuracy"):
                        torch.testing.assert_close(value, theirs[name], rtol=most, atol=most)
            for ours, theirs in zip(*(trainer.net.parameters() for trainer in trainers), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=most, atol=most)
    finally:
        torch.distributed.destroy_process_group()


class Devices(TorchDispatchMode):
    """Kinds of devices of all tensors that operations take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        self.seen |= {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        return out


@pytest.mark.parametrize("beforehand", [True, False])
def test_nothing_comes_from_the_host_or_is_read_back(beforehand: bool) -> None:
    """By tensors that pretend to be a GPU's: reading one back would fail, and what comes from the host is seen, as the
    weights of pairs are where they are not given beforehand."""
    with FakeTensorMode():
        with torch.device("cuda"):
            net = dhm.create_model("cifar_resnet", 10, depth=8).train()
            images, labels, weights = torch.ones(4, 3, 8, 8), torch.ones(4, dtype=torch.long), torch.ones(3, 3)
        objective = Objective(net, dhm.DHMLoss(), None, images.device)
        with Devices() as devices:
            objective._run(images, labels, None, weights if beforehand else None)
    assert devices.seen == {"cuda"} | (set() if beforehand else {"cpu"})


@pytest.mark.parametrize(
    ("optimizer", "options"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {"amsgrad": True})]
)
def test_an_optimizer_of_all_parameters_at_once_gives_the_same_bits(optimizer: type, options: dict) -> None:
    """As torch takes it on a GPU; the second parameter is held at first."""
    found = []
    for foreach in (False, True):
        rng = torch.Generator().manual_seed(0)
        parameters = [nn.Parameter(torch.randn(7, generator=rng)) for _ in range(2)]
        how = optimizer(parameters, lr=0.1, weight_decay=1e-4, foreach=foreach, **options)
        for number in range(4):
            for parameter in parameters[: 1 + number]:
                parameter.grad = torch.randn(7, generator=rng)
            how.step()
        found.append(parameters)
    assert all(map(torch.equal, *found))


def test_without_a_compiler_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(dhm.InputError, match=r"a step cannot be compiled here: torch.compile needs a C\+\+ compiler"):
        fit(tmp_path, compile=True)
    assert not list(tmp_path.iterdir())
