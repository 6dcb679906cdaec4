"""DHMLoss as the criterion of somebody else's program: their task loss, schedules, weights and modes set as they go."""

import copy
import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from test_losses import double_loop, make_logits
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import dhm
from dhm.losses import tracker_names

TARGET = torch.tensor([0, 3, 6, 2, 2])
PAIRS = [f"{q}<-{p}" for q, p in itertools.permutations(["B0", "B1", "B2"], 2)]
NO_CE = dict.fromkeys(["B0", "B1", "B2"], 0.0)


def kl_alone(logits: dict[str, torch.Tensor], kept: torch.Tensor | slice = slice(None)) -> torch.Tensor:
    """The mimicking term of the rows that count, by the double loop."""
    rows = {head: z[kept] for head, z in logits.items()}
    return double_loop(rows, torch.zeros(len(rows["B0"]), dtype=torch.int64), ce_weights=NO_CE)[0]


def focal(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    own = F.cross_entropy(logits, target, reduction="none")
    return ((1 - (-own).exp()) ** 2 * own).mean()


MULTI_HOT = (torch.rand(5, 7, generator=torch.Generator().manual_seed(3)) > 0.5).double()
TASKS = {
    "class weights": (nn.CrossEntropyLoss(weight=torch.rand(7, dtype=torch.float64)), TARGET),
    "multi-hot": (nn.BCEWithLogitsLoss(), MULTI_HOT),
    "multi-hot of integers": (lambda z, t: F.multilabel_soft_margin_loss(z, t.double()), MULTI_HOT.long()),
    "focal": (focal, TARGET),
    "two targets": (lambda z, t: 0.3 * F.cross_entropy(z, t[0]) + 0.7 * F.cross_entropy(z, t[1]), (TARGET, TARGET + 0)),
}


@pytest.mark.parametrize("name", TASKS)
def test_any_task_loss_takes_the_place_of_cross_entropy(name: str) -> None:
    logits, (task, target) = make_logits(3), TASKS[name]
    total, terms = dhm.DHMLoss(task_loss=task, ce_weights={"B1": 0.5})(logits, target)
    own = {head: task(z, target) for head, z in logits.items()}
    expected = own["B0"] + 0.5 * own["B1"] + own["B2"] + kl_alone(logits)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    for head in logits:
        torch.testing.assert_close(terms[f"ce/{head}"], own[head].detach())
    gradients = (torch.autograd.grad(value, list(logits.values())) for value in (total, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", ["cross-entropy", "task", "both"])
def test_ignored_images_neither_count_nor_mimic(how: str) -> None:
    """255 is the label to pass over, told to the loss or to the task loss alone."""
    logits, target = make_logits(3), TARGET.clone()
    target[1] = target[4] = 255
    task = None if how == "cross-entropy" else nn.CrossEntropyLoss(ignore_index=255)
    loss = dhm.DHMLoss(task_loss=task, ignore_index=None if how == "task" else 255)
    kept = target != 255
    expected = double_loop({head: z[kept] for head, z in logits.items()}, target[kept])[0]
    torch.testing.assert_close(loss(logits, target)[0], expected, rtol=1e-12, atol=1e-12)


def test_a_task_loss_of_dense_logits_sees_them_as_they_are() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = {head: torch.randn(2, 4, 3, 3, generator=rng, dtype=torch.float64) for head in ("B0", "B1")}
    target = torch.randint(4, (2, 3, 3), generator=rng)
    target[0, 0] = -100
    task = nn.CrossEntropyLoss()
    total, _ = dhm.DHMLoss(task_loss=task)(logits, target)
    torch.testing.assert_close(total, dhm.DHMLoss()(logits, target)[0], rtol=1e-12, atol=1e-12)


def test_a_task_loss_is_kept_from_half_precision() -> None:
    rounded = {head: z.to(torch.float16) for head, z in make_logits(2).items()}
    seen: list[torch.dtype] = []

    def task(z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(z.dtype)
        return F.cross_entropy(z, target)

    with torch.autocast("cpu", torch.bfloat16):
        dhm.DHMLoss(task_loss=task)(rounded, TARGET)
    assert seen == [torch.float32] * 2


def test_tensors_of_a_task_loss_go_where_the_loss_goes() -> None:
    loss = dhm.DHMLoss(task_loss=nn.CrossEntropyLoss(weight=torch.ones(7))).to(torch.float64)
    assert loss.task_loss.weight.dtype == torch.float64


@pytest.mark.parametrize("method", ["baseline", "dsl", "dhm"])
def test_without_terms_it_is_a_scalar_criterion(method: str) -> None:
    logits = make_logits(3)
    total, terms = dhm.DHMLoss(method)(logits, TARGET)
    loss = dhm.DHMLoss(method, return_terms=False)
    alone = loss(logits, TARGET)
    assert torch.equal(alone, total)
    assert loss.terms.keys() == terms.keys()
    assert all(torch.equal(loss.terms[name], terms[name]) for name in terms)
    alone.backward()
    copy.deepcopy(loss)


def test_what_is_set_between_steps_counts_from_the_next() -> None:
    logits = make_logits(3)
    loss = dhm.DHMLoss(mimic_weights=dict.fromkeys(PAIRS, 0.0))
    loss(logits, TARGET)
    changes = {
        "mimic_weights": dict.fromkeys(PAIRS, 1.5), "direction": "top_down", "temperature": 3.0,
        "ce_weights": {"B1": 0.0}, "label_smoothing": 0.1, "method": "dsl",
    }  # fmt: skip
    told = {}
    for name, value in changes.items():
        setattr(loss, name, value)
        told[name] = value
        how = {("smoothing" if key == "label_smoothing" else key): value for key, value in told.items()}
        expected = double_loop(logits, TARGET, **how)
        torch.testing.assert_close(loss(logits, TARGET)[0], expected[0], rtol=1e-12, atol=1e-12)
        assert loss.terms.keys() == expected[1].keys()


def test_a_weight_changed_in_its_place_counts_too() -> None:
    logits = make_logits(2)
    loss = dhm.DHMLoss(mimic_weights={"B0<-B1": 1.0})
    loss(logits, TARGET)
    loss.mimic_weights["B0<-B1"] = 4.0
    expected, _ = double_loop(logits, TARGET, mimic_weights={"B0<-B1": 4.0})
    torch.testing.assert_close(loss(logits, TARGET)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_mimic_scale_is_read_at_every_step(kind: type) -> None:
    logits = make_logits(3)
    dsl, whole = (dhm.DHMLoss(method)(logits, TARGET)[0] for method in ("dsl", "dhm"))
    loss = dhm.DHMLoss()
    assert loss.mimic_scale == 1
    for scale in (0.0, 0.25, 2.0, 1.0):
        loss.mimic_scale = kind(scale)
        total, terms = loss(logits, TARGET)
        torch.testing.assert_close(total, dsl + scale * (whole - dsl), rtol=1e-12, atol=1e-12)
        assert len(terms) == 9
    assert torch.equal(total, whole)


@pytest.mark.parametrize("scale", [0.0, torch.tensor(0.0)])
def test_a_scale_of_nothing_is_nothing_however_far_apart_heads_are(scale: float | torch.Tensor) -> None:
    logits = {"B0": torch.tensor([[0.0, 1.0, -math.inf]]), "B1": torch.tensor([[0.5, 0.0, 0.2]])}
    logits = {head: z.requires_grad_() for head, z in logits.items()}
    totals = [dhm.DHMLoss(**how)(logits, torch.tensor([1]))[0] for how in ({"method": "dsl"}, {"mimic_scale": scale})]
    assert torch.equal(*totals)
    gradients = (torch.autograd.grad(total, list(logits.values())) for total in totals)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))


def test_weights_of_pairs_computed_beforehand_are_the_steps_own() -> None:
    logits = make_logits(3)
    loss = dhm.DHMLoss(direction="top_down", mimic_weights={"B1<-B0": 3.0}, mimic_scale=0.5)
    for active in (None, ["B1"], []):
        weights = loss.pair_weights(tuple(logits), logits["B0"], active)
        total, terms = loss(logits, TARGET, pair_weights=weights)
        expected, told = loss(logits, TARGET, active)
        assert torch.equal(total, expected)
        assert terms.keys() >= told.keys()
    with pytest.raises(dhm.InputError, match=r"pair_weights must be \(3, 3\), student by teacher, not \(\)"):
        loss(logits, TARGET, pair_weights=torch.ones(()))


@pytest.mark.parametrize("how", [{}, {"return_terms": False}, {"task_loss": nn.BCEWithLogitsLoss()}])
def test_compiled_whole_it_follows_a_schedule_without_being_compiled_anew(how: dict) -> None:
    torch._dynamo.reset()
    graphs = []
    logits, target = make_logits(3), MULTI_HOT if "task_loss" in how else TARGET
    loss = dhm.DHMLoss(**how)
    compiled = torch.compile(loss, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    for step in range(8):
        loss.mimic_scale = step / 8
        answer, expected = compiled(logits, target), loss(logits, target)
        torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12)
    assert len(graphs) <= 2  # with the number as a constant, then with any


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("method", "deep", "method must be one of baseline, dsl, dhm, not 'deep'"),
        ("direction", "up", "direction must be one of both, top_down, bottom_up, not 'up'"),
        ("temperature", -1, "temperature must be positive, not -1"),
        ("temperature", "2", "temperature must be positive, not '2'"),
        ("label_smoothing", 1.0, r"label_smoothing must be in \[0, 1\), not 1.0"),
        ("ce_weights", [1.0], r"ce_weights must be finite numbers by name, not \[1.0\]"),
        ("ce_weights", {"B0": math.nan}, "ce_weights must be finite numbers by name, not {'B0': nan}"),
        ("mimic_weights", {"B0<-B1": "1"}, "mimic_weights must be finite numbers by name"),
        ("mimic_scale", math.inf, "mimic_scale must be a finite number, not inf"),
        ("mimic_scale", torch.ones(2), "mimic_scale must be a finite number, not tensor"),
        ("task_loss", "bce", "task_loss must be a function of logits and target, not 'bce'"),
    ],
)
def test_a_wrong_value_is_told_when_it_is_set(name: str, value: object, sentence: str) -> None:
    loss = dhm.DHMLoss()
    with pytest.raises(dhm.InputError, match=sentence):
        setattr(loss, name, value)
    with pytest.raises(dhm.InputError, match=sentence):
        dhm.DHMLoss(**{name: value})


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"task_loss": nn.CrossEntropyLoss(reduction="none")}, r"must give a single number, .* not \(5,\)"),
        ({"task_loss": lambda z, t: 1.0}, "must give a single number, .* not float"),
        ({"task_loss": nn.CrossEntropyLoss(), "label_smoothing": 0.1}, "label_smoothing=0.1 is the cross-entropy's"),
    ],
)
def test_a_task_loss_that_does_not_fit_is_told(how: dict, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        dhm.DHMLoss(**how)(make_logits(2), TARGET)


@pytest.mark.parametrize("method", ["baseline", "dsl", "dhm"])
@pytest.mark.parametrize("active", ["B1", 1, ["b1"], ["B1 "], ["branches.B1"], ["B7"], [1], [["B1"]]])
def test_a_branch_that_is_none_is_told(active: object, method: str) -> None:
    with pytest.raises(dhm.InputError, match=r"active (must be a list|names .*, but the classifiers are B0, )"):
        dhm.DHMLoss(method)(make_logits(3), TARGET, active)


@pytest.mark.parametrize("method", ["dsl", "dhm"])
def test_a_network_left_in_eval_mode_is_told_at_its_first_step(method: str) -> None:
    net = dhm.create_model("cifar_resnet", 7, depth=8).eval()
    loss, images, labels = dhm.DHMLoss(method), torch.randn(2, 3, 32, 32), torch.tensor([0, 6])
    with pytest.raises(dhm.InputError, match=f"method '{method}' trains all classifiers, .* call net.train"):
        loss(net(images), labels)
    loss(net.train()(images), labels)[0].backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("method", ["baseline", "dsl", "dhm"])
@pytest.mark.parametrize("task", [None, nn.CrossEntropyLoss(weight=torch.arange(1.0, 8).double())])
def test_validation_gives_the_plain_task_loss(task: nn.Module | None, method: str) -> None:
    logits = make_logits(1)["B0"]
    loss = dhm.DHMLoss(method, task_loss=task, ce_weights={"B0": 0.5, "B1": 2.0})
    expected = (task or F.cross_entropy)(logits, TARGET)
    with torch.no_grad():
        total, terms = loss(logits * 1.0, TARGET)
    torch.testing.assert_close(total, expected.detach())
    assert terms.keys() == {"ce/B0"}
    assert loss(logits.detach(), TARGET)[0] == total


@pytest.mark.filterwarnings("ignore")
def test_the_baseline_of_a_branched_network_trains_under_ddp(tmp_path: Path) -> None:
    """DDP refuses the second step of a network whose parameters did not all get a gradient in the first."""
    torch.manual_seed(0)
    net = dhm.create_model("cifar_resnet", 7, depth=8)
    plain, images, labels = copy.deepcopy(net), torch.randn(4, 3, 8, 8), torch.tensor([0, 6, 2, 2])
    loss = dhm.DHMLoss("baseline")
    loss(plain(images), labels)[0].backward()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(net)
        for _ in range(2):
            net.zero_grad()
            total, terms = loss(parallel(images), labels)
            total.backward()
    finally:
        distributed.destroy_process_group()
    assert torch.equal(total.detach(), terms["ce/B0"])
    assert all(not p.grad.any() for p in net.branches.parameters())
    assert all(p.grad is None for p in plain.branches.parameters())
    for ours, theirs in zip(net.backbone.parameters(), plain.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_names_for_trackers() -> None:
    """MLflow takes letters, digits, _ - . : / and spaces."""
    terms = dhm.DHMLoss()(make_logits(3), TARGET)[1]
    named = tracker_names(terms)
    assert named["kl/B0_from_B1"] is terms["kl/B0<-B1"]
    assert len(named) == len(terms) == 9
    assert all(re.fullmatch(r"[/\w.\- :]+", name) for name in named)
