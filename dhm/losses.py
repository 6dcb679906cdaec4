"""The objective: cross-entropies of all classifiers and pairwise mimicking (Eqs. 7-9)."""

from collections.abc import Collection, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dhm.branches import MAIN
from dhm.config import DIRECTIONS, METHODS
from dhm.errors import InputError
from dhm.randomness import generator

IGNORED = -100
"""The label of an image or position that counts in no term, as in torch's cross-entropy."""
_STREAM = 0xB3A9C4  # keeps the draw of branches apart from the order of the images under the same seed and epoch


class DHMLoss(nn.Module):
    """Sum of cross-entropies and, for every ordered pair of classifiers, a KL divergence toward the other's prediction.

    L = sum_q c_q CE(q) + sum_{q != p} m_qp T^2 KL(softmax(z_p / T) || softmax(z_q / T)), where the teacher p is a
    constant. Eqs. 7-9 with all weights one; Eq. 9's sums include the main classifier, as section 3.2 says and the
    released program does, although it prints L - 1 as their end.

    Args:
        method: "baseline" (B0's cross-entropy alone), "dsl" (all cross-entropies), "dhm" (and mimicking).
        direction: "both"; "top_down", where the deeper classifier teaches the shallower; "bottom_up", the reverse
            (section 4.3.1).
        temperature: T; predictions are softened by it and the divergence multiplied by its square.
        ce_weights: weight of a classifier's cross-entropy by its name, 1 where none is given.
        mimic_weights: weight of a pair by "student<-teacher", e.g. {"B0<-B1": 0.5}, 1 where none is given.
        label_smoothing: share of the target spread over all classes, in the cross-entropies.
    """

    def __init__(
        self, method: str = "dhm", direction: str = "both", temperature: float = 1.0,
        ce_weights: Mapping[str, float] | None = None, mimic_weights: Mapping[str, float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
        if direction not in DIRECTIONS:
            raise InputError(f"direction must be one of {', '.join(DIRECTIONS)}, not {direction!r}")
        if not temperature > 0:
            raise InputError(f"temperature must be positive, not {temperature!r}")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must be in [0, 1), not {label_smoothing!r}")
        self.method, self.direction, self.temperature = method, direction, float(temperature)
        self.ce_weights, self.mimic_weights = dict(ce_weights or {}), dict(mimic_weights or {})
        self.label_smoothing = label_smoothing
        self._kept_pairs: dict[Any, tuple[list[tuple[int, int]], torch.Tensor, torch.Tensor]] = {}

    def forward(
        self,
        logits: Mapping[str, torch.Tensor] | torch.Tensor,
        target: torch.Tensor,
        active: Collection[str] | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of one batch, its mean over the images, or over all positions of dense logits.

        Args:
            logits: (N, K) or (N, K, ...) for every classifier, the deepest (B0) first, then from deep to shallow; or
                B0's alone, which is a network's answer in eval mode. Classes at minus infinity are impossible ones:
                the loss is what it is without them, 0 · inf being 0.
            target: class indices (N, ...), where -100 leaves an image or position out of every term, or probabilities
                in the shape of the logits.
            active: branches that take part in mimicking, all by default. B0 always does; cross-entropies stay.

        Returns:
            The loss, and its terms by name without gradient: "ce/B0", ..., "kl/B0<-B1" (B0 learns from B1). In half
            precision both are computed in float32.

        Raises:
            InputError: as `check`; B0 alone, the answer of eval mode, leaves the weights of other classifiers unused.
                Or logits or a target of another form, or a label that is no class.
        """
        if isinstance(logits, torch.Tensor):
            logits = {MAIN: logits}
        elif not isinstance(logits, Mapping) or not logits:
            raise InputError(
                'logits must be given by classifier, the deepest first, e.g. {"B0": logits, "B1": logits}, not as a '
                f"{type(logits).__name__} of {len(logits) if isinstance(logits, Sized) else 'them'}"
            )
        elif self.ce_weights or self.mimic_weights:
            self.check(tuple(logits))
        heads = (MAIN,) if self.method == "baseline" else tuple(logits)
        _check_forms(logits, heads, target)
        # All heads as one (heads, N, K) block: each later line is one operation, however many branches there are.
        block = torch.stack([_rows(logits[head]) for head in heads])
        with torch.autocast(block.device.type, enabled=False):
            block = block.float() if block.dtype in (torch.float16, torch.bfloat16) else block
            target = _rows(target).to(block.dtype) if target.is_floating_point() else target.flatten().long()
            entropies = [cross_entropy(z, target, self.label_smoothing) for z in block]
            terms = {f"ce/{head}": value.detach() for head, value in zip(heads, entropies, strict=True)}
            weights = [self.ce_weights.get(head, 1.0) for head in heads]
            total = torch.stack([
                c * (value if c else value.masked_fill(value.isinf(), 0))
                for c, value in zip(weights, entropies, strict=True)
            ]).sum()  # fmt: skip
            if self.method == "dhm" and len(heads) > 1:
                pairs, pair_weights, unused = self._pairs(heads, None if active is None else frozenset(active), block)
                counted = None if target.is_floating_point() else target != IGNORED
                divergences = pairwise_kl(block, self.temperature, counted)
                total = total + (pair_weights * divergences.masked_fill(unused, 0)).sum()
                values = divergences.detach()
                terms |= {f"kl/{heads[q]}<-{heads[p]}": values[q, p] for q, p in pairs}
        return total, terms

    def check(self, heads: Sequence[str]) -> None:
        """See that every weight belongs to a classifier or a pair that is there.

        Raises:
            InputError: one does not, and would be ignored in silence.
        """
        pairs = {f"{q}<-{p}" for q in heads for p in heads if p != q}
        for name in sorted(self.ce_weights.keys() - set(heads) | self.mimic_weights.keys() - pairs):
            raise InputError(f"a loss weight is given for {name!r}, but the classifiers are {', '.join(heads)}")

    def _pairs(
        self, heads: tuple[str, ...], active: frozenset[str] | None, like: torch.Tensor
    ) -> tuple[list[tuple[int, int]], torch.Tensor, torch.Tensor]:
        """The (student, teacher) pairs that mimic, the matrix of their weights and where it is zero, kept for the steps
        that follow.

        Indices grow from the deepest head to the shallowest.
        """
        key = (heads, active, like.device, like.dtype)
        if key not in self._kept_pairs:
            mimicking = [i for i, head in enumerate(heads) if head == MAIN or active is None or head in active]
            allowed = {"both": lambda q, p: True, "top_down": lambda q, p: p < q, "bottom_up": lambda q, p: p > q}
            pairs = [(q, p) for q in mimicking for p in mimicking if q != p and allowed[self.direction](q, p)]
            weights = torch.zeros(len(heads), len(heads), dtype=torch.float64)
            for q, p in pairs:
                weights[q, p] = self.mimic_weights.get(f"{heads[q]}<-{heads[p]}", 1.0)
            self._kept_pairs[key] = pairs, weights.to(like), (weights == 0).to(like.device)
        return self._kept_pairs[key]


def taking_part(branches: Sequence[str], probability: float, seed: int, epoch: int) -> list[str]:
    """Side branches that take part in an epoch's mimicking, each by a coin of its own (appendix D).

    A function of its arguments alone, so that a resumed run draws what it would have drawn.
    """
    coins = torch.rand(len(branches), generator=generator(_STREAM, seed, epoch), dtype=torch.float64)
    return [branch for branch, coin in zip(branches, coins.tolist(), strict=True) if coin < probability]


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy of logits (N, K) toward class indices (N,) or probabilities (N, K): torch's, but for classes
    that are impossible to both, which torch's gives as NaN where the target holds probabilities.

    Raises:
        InputError: a label that is no class (a GPU cannot tell).
    """
    if not target.is_floating_point():
        try:
            return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
        except IndexError as error:
            raise InputError(f"the logits are of {logits.shape[1]} classes, counted from 0: {error}") from None
    truth = target * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    log_predictions = F.log_softmax(logits, dim=1)
    return -(truth * log_predictions.masked_fill(truth == 0, 0)).sum(dim=1).mean()


def pairwise_kl(logits: torch.Tensor, temperature: float = 1.0, counted: torch.Tensor | None = None) -> torch.Tensor:
    """T^2 KL(softmax(z_p / T) || softmax(z_q / T)), mean over the batch, for all pairs of heads.

    Values are sums of p (log p - log q), each pair by itself: as cross-entropy minus entropy, heads that nearly agree
    would leave little but rounding. Backward is one product of the weights with the constant predictions
    (heads, N K), in which each head sees the weighted sum of its teachers.

    Args:
        logits: (heads, N, K).
        counted: (N,) bool, the images that count; all by default.

    Returns:
        (heads, heads): row q is the student, which receives gradients, column p the teacher, a constant.
    """
    log_predictions = F.log_softmax(logits / temperature, dim=-1)
    predictions = log_predictions.detach().exp()
    scale: float | torch.Tensor = temperature**2 / max(logits.shape[1], 1)
    if counted is not None:
        predictions = predictions * counted[:, None].to(logits.dtype)
        scale = temperature**2 / counted.sum(dtype=logits.dtype)
    return _PairwiseKL.apply(log_predictions.flatten(1), predictions.flatten(1)) * scale


class _PairwiseKL(torch.autograd.Function):
    """sum p (log p - log q) for all pairs of rows, log-predictions (heads, n) and constant predictions (heads, n)."""

    @staticmethod
    def forward(ctx: Any, log_predictions: torch.Tensor, predictions: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(predictions)
        products = (log_predictions[None] - log_predictions[:, None]).mul_(predictions)
        # a head that is not a number stays so; any other NaN is 0 · inf, an impossible class
        nan = 0 * predictions.sum(dim=1)
        return products.nan_to_num_(0.0, torch.inf, -torch.inf).sum(dim=2) + nan + nan[:, None]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -gradients[0] @ ctx.saved_tensors[0], None


def _rows(values: torch.Tensor) -> torch.Tensor:
    """(N, K, ...) -> (positions, K)."""
    return values if values.dim() == 2 else values.movedim(1, -1).flatten(0, -2)


def _check_forms(logits: Mapping[str, torch.Tensor], heads: Sequence[str], target: torch.Tensor) -> None:
    """See that all classifiers answer in one shape and that the target fits it.

    Raises:
        InputError: one does not; the sentence names it with its shape.
    """
    for head in heads:
        if not isinstance(logits.get(head), torch.Tensor):
            given = type(logits[head]).__name__ if head in logits else "missing"
            raise InputError(f"logits must hold a tensor for every classifier, but {head}'s is {given}")
    first, shape = heads[0], tuple(logits[heads[0]].shape)
    if len(shape) < 2:
        raise InputError(f"logits must be (N, K) or (N, K, ...), but {first}'s are {shape}")
    for head in heads:
        other = tuple(logits[head].shape)
        if other != shape:
            raise InputError(f"all classifiers must answer in one shape, but {first}'s is {shape}, {head}'s {other}")
    wanted = shape if target.is_floating_point() else (shape[0], *shape[2:])
    if tuple(target.shape) != wanted:
        what = "probabilities" if target.is_floating_point() else "class indices"
        raise InputError(f"a target of {what} must be {wanted} for logits {shape}, not {tuple(target.shape)}")
