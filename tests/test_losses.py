"""DHMLoss against a plain double loop over pairs, closed forms and torch's own divergence."""

import itertools

import pytest
import torch
from torch.nn import functional as F

import dhm
from dhm.losses import pairwise_kl


def make_logits(heads: int, scale: float = 3.0, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(heads)
    return {f"B{i}": (scale * torch.randn(5, 7, generator=rng, dtype=torch.float64)).to(dtype).requires_grad_()
            for i in range(heads)}  # fmt: skip


TARGET = torch.tensor([0, 3, 6, 2, 2])


def double_loop(
    logits: dict[str, torch.Tensor], target: torch.Tensor, method: str = "dhm", direction: str = "both",
    temperature: float = 1.0, ce_weights: dict | None = None, mimic_weights: dict | None = None,
    smoothing: float = 0.0, active: set | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
    """Eqs. 7-9 written as they are read: one term after the other."""
    ce_weights, mimic_weights = ce_weights or {}, mimic_weights or {}
    names = list(logits)
    total, terms = torch.zeros((), dtype=torch.float64), {}
    for name in names[:1] if method == "baseline" else names:
        log_p = logits[name].log_softmax(1)
        truth = target if target.dim() == 2 else F.one_hot(target, log_p.shape[1]).double()
        truth = (1 - smoothing) * truth + smoothing / log_p.shape[1]
        terms[f"ce/{name}"] = -(truth * log_p).sum() / len(log_p)
        total = total + ce_weights.get(name, 1.0) * terms[f"ce/{name}"]
    if method != "dhm":
        return total, terms
    for (q, student), (p, teacher) in itertools.permutations(enumerate(names), 2):
        if active is not None and not {student, teacher} <= active | {"B0"}:
            continue
        if (direction == "top_down" and p > q) or (direction == "bottom_up" and p < q):
            continue
        soft = (logits[teacher].detach() / temperature).softmax(1)
        log_q = (logits[student] / temperature).log_softmax(1)
        value = temperature**2 * (soft * (soft.log() - log_q)).sum() / len(soft)
        terms[f"kl/{student}<-{teacher}"] = value
        total = total + mimic_weights.get(f"{student}<-{teacher}", 1.0) * value
    return total, terms


def assert_same_loss(logits: dict[str, torch.Tensor], target: torch.Tensor, active: set | None = None, **how) -> None:
    loss = dhm.DHMLoss(**{("label_smoothing" if k == "smoothing" else k): v for k, v in how.items()})
    total, terms = loss(logits, target, active)
    expected, expected_terms = double_loop(logits, target, active=active, **how)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    assert terms.keys() == expected_terms.keys()
    for name, value in terms.items():
        assert not value.requires_grad
        torch.testing.assert_close(value, expected_terms[name].detach(), rtol=1e-12, atol=1e-12)
    used = [z for name, z in logits.items() if loss.method != "baseline" or name == "B0"]
    for ours, theirs in zip(torch.autograd.grad(total, used), torch.autograd.grad(expected, used), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("direction", ["both", "top_down", "bottom_up"])
@pytest.mark.parametrize("heads", range(1, 7))
def test_equals_the_double_loop(heads: int, direction: str, temperature: float) -> None:
    assert_same_loss(make_logits(heads), TARGET, direction=direction, temperature=temperature)


@pytest.mark.parametrize("heads", [2, 3, 6])
def test_weights(heads: int) -> None:
    names = [f"B{i}" for i in range(heads)]
    ce = {name: 0.3 + i for i, name in enumerate(names)}
    mimic = {f"{q}<-{p}": 0.1 + 2 * i for i, (q, p) in enumerate(itertools.permutations(names, 2)) if i % 2}
    assert_same_loss(make_logits(heads), TARGET, ce_weights=ce, mimic_weights=mimic, temperature=2.0)


@pytest.mark.parametrize("method", ["baseline", "dsl", "dhm"])
def test_methods_and_label_smoothing(method: str) -> None:
    assert_same_loss(make_logits(3), TARGET, method=method, smoothing=0.1)


def test_soft_targets() -> None:
    assert_same_loss(make_logits(3), torch.rand(5, 7, dtype=torch.float64).softmax(1))


@pytest.mark.parametrize("active", [set(), {"B2"}, {"B1", "B2"}])
def test_inactive_branches_leave_mimicking_and_keep_their_cross_entropy(active: set) -> None:
    assert_same_loss(make_logits(3), TARGET, active=active)


def test_kl_and_cross_entropy_toward_a_constant_teacher_have_the_same_gradient() -> None:
    """Section 3.2: the two differ by the teacher's entropy, a constant."""
    logits = make_logits(2)
    total, _ = dhm.DHMLoss(direction="top_down", ce_weights={"B0": 0.0, "B1": 0.0})(logits, TARGET)
    cross_entropy = F.cross_entropy(logits["B1"], logits["B0"].detach().softmax(1))
    ours, theirs = (torch.autograd.grad(value, logits["B1"])[0] for value in (total, cross_entropy))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_values_are_torch_divergences() -> None:
    logits = make_logits(3)
    _, terms = dhm.DHMLoss()(logits, TARGET)
    expected = F.kl_div(
        logits["B1"].log_softmax(1), logits["B2"].log_softmax(1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(terms["kl/B1<-B2"], expected.detach())


def test_closed_form_for_two_classes() -> None:
    """p = sigmoid(a), q = sigmoid(b): the student's gradient is q - p, and KL is the textbook formula."""
    a, b = torch.tensor(0.8, dtype=torch.float64), torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(())
    block = torch.stack([torch.stack([a, zero]), torch.stack([b, zero])])[:, None]
    value = pairwise_kl(block)[1, 0]
    p, q = torch.sigmoid(a), torch.sigmoid(b)
    expected = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, b)[0], (q - p).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_huge_logits_give_finite_losses_and_gradients(dtype: torch.dtype) -> None:
    logits = make_logits(3, scale=1e4, dtype=dtype)
    total, terms = dhm.DHMLoss()(logits, TARGET)
    assert total.dtype == torch.float32
    assert all(torch.isfinite(value) for value in (total, *terms.values()))
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(total, list(logits.values())))


def test_autocast_does_not_round_the_loss() -> None:
    logits = make_logits(3, dtype=torch.float32)
    exact, _ = dhm.DHMLoss()(logits, TARGET)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = dhm.DHMLoss()(logits, TARGET)
    assert torch.equal(exact, mixed)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"method": "deep"}, "method must be one of baseline, dsl, dhm, not 'deep'"),
        ({"direction": "up"}, "direction must be one of"),
        ({"temperature": 0}, "temperature must be positive, not 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
    ],
)
def test_wrong_settings(how: dict, sentence: str) -> None:
    with pytest.raises(dhm.InputError, match=sentence):
        dhm.DHMLoss(**how)


@pytest.mark.parametrize("method", ["baseline", "dsl", "dhm"])
@pytest.mark.parametrize(
    ("weights", "named"), [({"ce_weights": {"B7": 1.0}}, "B7"), ({"mimic_weights": {"B0<-B7": 1.0}}, "B0<-B7")]
)
def test_weight_of_a_classifier_that_is_not_there(weights: dict, named: str, method: str) -> None:
    loss = dhm.DHMLoss(method, **weights)
    for _ in range(2):  # and again at the next step
        with pytest.raises(dhm.InputError, match=f"a loss weight is given for '{named}'"):
            loss(make_logits(2), TARGET)


def test_weights_of_heads_that_a_method_or_eval_mode_leaves_out_are_no_mistake() -> None:
    logits, weights = make_logits(2), {"B0": 1.0, "B1": 3.0}
    loss = dhm.DHMLoss("baseline", ce_weights=weights)
    assert torch.equal(loss(logits, TARGET)[0], loss(logits["B0"], TARGET)[0])


def test_the_answer_of_eval_mode_has_a_cross_entropy() -> None:
    logits, labels = torch.randn(4, 7), torch.tensor([0, 6, 3, 3])
    total, terms = dhm.DHMLoss()(logits, labels)
    assert torch.equal(total, F.cross_entropy(logits, labels))
    assert terms.keys() == {"ce/B0"}
