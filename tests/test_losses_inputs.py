"""What DHMLoss is given: dense logits, impossible classes, ignored or soft labels, half precision, heads that agree."""

import itertools
import math

import pytest
import torch
from test_losses import double_loop
from torch.nn import functional as F

import dhm

HEADS = ("B0", "B1", "B2")


def heads_of(*shape: int, seed: int = 0, scale: float = 2.0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {h: (scale * torch.randn(shape, generator=rng, dtype=torch.float64)).requires_grad_() for h in HEADS}


def assert_equal(ours: tuple, theirs: tuple, logits: dict[str, torch.Tensor]) -> None:
    """Total, terms and gradients; what one of both does not reach has no gradient in either."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-12)
    assert ours[1].keys() == theirs[1].keys()
    for name, value in ours[1].items():
        torch.testing.assert_close(value, theirs[1][name].detach(), rtol=1e-12, atol=1e-12)
    options = {"allow_unused": True, "materialize_grads": True}
    gradients = (torch.autograd.grad(total, list(logits.values()), **options) for total, _ in (ours, theirs))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("direction", ["both", "top_down", "bottom_up"])
@pytest.mark.parametrize("method", ["baseline", "dsl", "dhm"])
@pytest.mark.parametrize("labels", ["indices", "ignored", "soft", "dense", "dense ignored", "dense soft", "one image"])
def test_every_combination_is_the_double_loop(
    labels: str, method: str, direction: str, temperature: float, weighted: bool, label_smoothing: float
) -> None:
    """The loop sees rows of (positions, K), without those whose label is ignored."""
    shape = {"dense": (3, 5, 4, 2), "one": (1, 5)}.get(labels.split()[0], (6, 5))
    logits, places = heads_of(*shape), (shape[0], *shape[2:])
    target = torch.randint(5, places, generator=torch.Generator().manual_seed(1))
    kept = torch.ones(places, dtype=torch.bool)
    if "ignored" in labels:
        kept.view(-1)[::3] = False
        target[~kept] = -100
    if "soft" in labels:
        target = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).softmax(1)
    rows = {head: z.movedim(1, -1)[kept] for head, z in logits.items()}
    plain = target.movedim(1, -1)[kept] if "soft" in labels else target[kept]
    ce = {"B0": 0.5, "B2": 2.0} if weighted else None
    mimic = {"B0<-B1": 0.3, "B2<-B0": 0.0} if weighted else None
    how = {"method": method, "direction": direction, "temperature": temperature}
    loss = dhm.DHMLoss(**how, ce_weights=ce, mimic_weights=mimic, label_smoothing=label_smoothing)
    expected = double_loop(rows, plain, **how, ce_weights=ce, mimic_weights=mimic, smoothing=label_smoothing)
    assert_equal(loss(logits, target), expected, logits)


@pytest.mark.parametrize("method", ["dsl", "dhm"])
@pytest.mark.parametrize("labels", ["indices", "soft"])
def test_impossible_classes_are_as_if_they_were_not_there(labels: str, method: str) -> None:
    logits = heads_of(6, 9)
    inside = {head: z[:, :5] for head, z in logits.items()}
    outside = {head: z.masked_fill(torch.arange(9) >= 5, -math.inf) for head, z in logits.items()}
    target = torch.randint(5, (6,)) if labels == "indices" else torch.rand(6, 5, dtype=torch.float64).softmax(1)
    longer = target if labels == "indices" else F.pad(target, (0, 4))
    loss = dhm.DHMLoss(method, temperature=2.0)
    assert_equal(loss(outside, longer), loss(inside, target), logits)


def test_a_pair_that_does_not_mimic_adds_nothing_however_far_apart() -> None:
    """B0 forbids a class that B1 allows: KL(B1 || B0) is infinite, and not in the loss of top_down."""
    logits = {"B0": torch.tensor([[0.0, 1.0, -math.inf]]), "B1": torch.tensor([[0.5, 0.0, 0.2]])}
    logits = {head: z.double().requires_grad_() for head, z in logits.items()}
    target = torch.tensor([1])
    total, terms = dhm.DHMLoss(direction="top_down")(logits, target)
    p, q = logits["B0"].detach().softmax(1)[:, :2], logits["B1"].log_softmax(1)[:, :2]
    assert terms["kl/B1<-B0"].item() == pytest.approx((p * (p.log() - q)).sum().item(), rel=1e-12)
    entropies = sum(F.cross_entropy(z, target) for z in logits.values())
    assert total.item() == pytest.approx((entropies + terms["kl/B1<-B0"]).item(), rel=1e-12)
    both, terms = dhm.DHMLoss()(logits, target)
    assert terms["kl/B0<-B1"].item() == both.item() == math.inf
    off, _ = dhm.DHMLoss(mimic_weights={"B0<-B1": 0.0})(logits, target)
    assert off.item() == pytest.approx(total.item(), rel=1e-12)
    forbidden, _ = dhm.DHMLoss("dsl", ce_weights={"B0": 0.0})(logits, torch.tensor([2]))
    assert forbidden.item() == pytest.approx(F.cross_entropy(logits["B1"], torch.tensor([2])).item(), rel=1e-12)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_a_number_stays_so(broken: float) -> None:
    logits = heads_of(4, 5)
    logits["B1"] = logits["B1"].detach().index_fill(1, torch.tensor([2]), broken)
    total, terms = dhm.DHMLoss()(logits, torch.zeros(4, dtype=torch.int64))
    assert total.isnan()
    assert {name for name, value in terms.items() if value.isnan()} == {name for name in terms if "B1" in name}


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3, 1e-4])
def test_heads_that_nearly_agree_are_as_exact_as_torch(noise: float, classes: int) -> None:
    """Error against float64, of every pair and by root mean square, at most that of torch's own kl_div in float32."""
    rng, ours, torchs = torch.Generator().manual_seed(0), [], []
    for _ in range(8):
        base = torch.randn(64, classes, generator=rng)
        logits = {h: base + noise * torch.randn(64, classes, generator=rng) for h in HEADS}
        _, terms = dhm.DHMLoss()(logits, torch.zeros(64, dtype=torch.int64))
        for q, p in itertools.permutations(HEADS, 2):
            lq, lp = (logits[h].double().log_softmax(1) for h in (q, p))
            exact = (lp.exp() * (lp - lq)).sum().item() / 64
            single = F.kl_div(
                logits[q].log_softmax(1), logits[p].log_softmax(1), log_target=True, reduction="batchmean"
            ).item()
            ours.append(terms[f"kl/{q}<-{p}"].item() - exact)
            torchs.append(single - exact)
    rms = [math.sqrt(sum(e * e for e in errors) / len(errors)) for errors in (ours, torchs)]
    assert rms[0] <= 1.05 * rms[1] + 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_loss_of_the_rounded_logits(dtype: torch.dtype) -> None:
    rounded = {h: z.detach().to(dtype) for h, z in heads_of(6, 5, 3).items()}
    target = torch.randint(5, (6, 3))
    total, _ = dhm.DHMLoss()(rounded, target)
    exact, _ = dhm.DHMLoss()({h: z.double() for h, z in rounded.items()}, target)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(exact.item(), rel=1e-6)


def test_one_class_leaves_nothing_to_learn() -> None:
    total, terms = dhm.DHMLoss()(heads_of(4, 1), torch.zeros(4, dtype=torch.int64))
    assert total.item() == 0
    assert all(value == 0 for value in terms.values())


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", ["baseline", "dsl", "dhm"])
def test_what_is_ignored_may_be_no_number(method: str, broken: float) -> None:
    logits = heads_of(4, 5)
    whole = {head: z.detach().index_fill(0, torch.tensor([1]), broken).requires_grad_() for head, z in logits.items()}
    without = {head: z[[0, 2, 3]] for head, z in logits.items()}
    ours, terms = dhm.DHMLoss(method)(whole, torch.tensor([0, -100, 4, 2]))
    theirs, expected = double_loop(without, torch.tensor([0, 4, 2]), method=method)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-12
    )
    for head, gradient in zip(HEADS, torch.autograd.grad(ours, list(whole.values()), allow_unused=True), strict=True):
        if gradient is not None:
            assert not gradient[1].any()
            assert gradient[[0, 2, 3]].isfinite().all(), head


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integers(kind: torch.dtype) -> None:
    logits, target = heads_of(4, 5), torch.tensor([0, 4, 2, 2])
    assert torch.equal(dhm.DHMLoss()(logits, target.to(kind))[0], dhm.DHMLoss()(logits, target)[0])


def test_the_baseline_looks_at_b0_alone() -> None:
    logits, target = heads_of(4, 5), torch.tensor([0, 4, 2, 2])
    total, _ = dhm.DHMLoss("baseline")({**logits, "B1": torch.zeros(4, 9)}, target)
    assert torch.equal(total, F.cross_entropy(logits["B0"], target))
    with pytest.raises(dhm.InputError, match="but B0's is missing"):
        dhm.DHMLoss("baseline")({"out": logits["B0"]}, target)


ROWS = torch.zeros(8, 10)


@pytest.mark.parametrize(
    ("logits", "target", "sentence"),
    [
        ([ROWS, ROWS], torch.zeros(8).long(), r"must be given by classifier, .* not as a list of 2"),
        ((ROWS,) * 3, torch.zeros(8).long(), "not as a tuple of 3"),
        ({}, torch.zeros(8).long(), "not as a dict of 0"),
        ({"B0": ROWS, "B1": ROWS[:, :8]}, torch.zeros(8).long(), r"B0's is \(8, 10\), B1's \(8, 8\)"),
        ({"B0": ROWS, "B1": None}, torch.zeros(8).long(), "but B1's is NoneType"),
        ({"B0": ROWS[0]}, torch.tensor(0), r"must be \(N, K\) or \(N, K, ...\), but B0's are \(10,\)"),
        (ROWS, torch.zeros(7).long(), r"class indices must be \(8,\) for logits \(8, 10\), not \(7,\)"),
        (ROWS, torch.zeros(8, 10).long(), r"class indices must be \(8,\)"),
        (ROWS, torch.zeros(8), r"probabilities must be \(8, 10\) for logits \(8, 10\), not \(8,\)"),
        (ROWS.long(), torch.zeros(8).long(), "must be floating-point numbers, but B0's are torch.int64"),
        (ROWS, [0] * 8, "must be a tensor of class indices or probabilities, not list"),
        (ROWS, torch.zeros(8, dtype=torch.complex64), "class indices or probabilities, not torch.complex64"),
        (ROWS, torch.full((8,), 10), "of 10 classes, counted from 0: Target 10 is out of bounds"),
        (ROWS, torch.full((8,), -1), "of 10 classes, counted from 0: Target -1 is out of bounds"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(logits: object, target: torch.Tensor, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        dhm.DHMLoss()(logits, target)
