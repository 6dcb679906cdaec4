"""The objective: cross-entropies of all classifiers and pairwise mimicking (Eqs. 7-9)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dhm.branches import MAIN
from dhm.config import DIRECTIONS, METHODS
from dhm.errors import InputError
from dhm.randomness import generator

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
        self._kept_pairs: dict[Any, tuple[list[tuple[int, int]], torch.Tensor]] = {}

    def forward(
        self,
        logits: Mapping[str, torch.Tensor] | torch.Tensor,
        target: torch.Tensor,
        active: Collection[str] | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of one batch.

        Args:
            logits: (N, K) for every classifier, the deepest (B0) first, then from deep to shallow; or B0's alone, which
                is a network's answer in eval mode.
            target: class indices (N,) or probabilities (N, K).
            active: branches that take part in mimicking, all by default. B0 always does; cross-entropies stay.

        Returns:
            The loss, and its terms by name without gradient: "ce/B0", ..., "kl/B0<-B1" (B0 learns from B1). In half
            precision both are computed in float32.

        Raises:
            InputError: as `check`; B0 alone, the answer of eval mode, leaves the weights of other classifiers unused.
        """
        if isinstance(logits, torch.Tensor):
            logits = {MAIN: logits}
        elif self.ce_weights or self.mimic_weights:
            self.check(tuple(logits))
        heads = (MAIN,) if self.method == "baseline" else tuple(logits)
        # All heads as one (heads, N, K) block: each later line is one operation, however many branches there are.
        block = torch.stack([logits[head] for head in heads])
        with torch.autocast(block.device.type, enabled=False):
            block = block.float() if block.dtype in (torch.float16, torch.bfloat16) else block
            entropies = [F.cross_entropy(z, target, label_smoothing=self.label_smoothing) for z in block]
            terms = {f"ce/{head}": value.detach() for head, value in zip(heads, entropies, strict=True)}
            weights = [self.ce_weights.get(head, 1.0) for head in heads]
            total = torch.stack([c * value for c, value in zip(weights, entropies, strict=True)]).sum()
            if self.method == "dhm" and len(heads) > 1:
                pairs, pair_weights = self._pairs(heads, None if active is None else frozenset(active), block.device)
                divergences = pairwise_kl(block, self.temperature)
                total = total + (pair_weights.to(divergences.dtype) * divergences).sum()
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
        self, heads: tuple[str, ...], active: frozenset[str] | None, device: torch.device
    ) -> tuple[list[tuple[int, int]], torch.Tensor]:
        """The (student, teacher) pairs that mimic and the matrix of their weights, kept for the steps that follow.

        Indices grow from the deepest head to the shallowest.
        """
        key = (heads, active, device)
        if key not in self._kept_pairs:
            mimicking = [i for i, head in enumerate(heads) if head == MAIN or active is None or head in active]
            allowed = {"both": lambda q, p: True, "top_down": lambda q, p: p < q, "bottom_up": lambda q, p: p > q}
            pairs = [(q, p) for q in mimicking for p in mimicking if q != p and allowed[self.direction](q, p)]
            weights = torch.zeros(len(heads), len(heads), dtype=torch.float64)
            for q, p in pairs:
                weights[q, p] = self.mimic_weights.get(f"{heads[q]}<-{heads[p]}", 1.0)
            self._kept_pairs[key] = pairs, weights.to(device)
        return self._kept_pairs[key]


def taking_part(branches: Sequence[str], probability: float, seed: int, epoch: int) -> list[str]:
    """Side branches that take part in an epoch's mimicking, each by a coin of its own (appendix D).

    A function of its arguments alone, so that a resumed run draws what it would have drawn.
    """
    coins = torch.rand(len(branches), generator=generator(_STREAM, seed, epoch), dtype=torch.float64)
    return [branch for branch, coin in zip(branches, coins.tolist(), strict=True) if coin < probability]


def pairwise_kl(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """T^2 KL(softmax(z_p / T) || softmax(z_q / T)), mean over the batch, for all pairs of heads.

    KL is the cross-entropy minus the teacher's entropy. All cross-entropies are one product of the constant
    predictions (heads, N K) with the log-predictions (N K, heads), so backward is one pass in which each head sees
    the weighted sum of its teachers, and the value of every single pair comes with it.

    Args:
        logits: (heads, N, K).

    Returns:
        (heads, heads): row q is the student, which receives gradients, column p the teacher, a constant.
    """
    batch = logits.shape[1]
    log_predictions = F.log_softmax(logits / temperature, dim=-1).flatten(1)
    constant = log_predictions.detach()
    predictions = constant.exp()
    entropy = -(predictions * constant).sum(dim=1)
    cross_entropy = log_predictions @ predictions.T
    return (-cross_entropy - entropy) * (temperature**2 / batch)
