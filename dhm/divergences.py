"""Single terms of the loss: a cross-entropy, the divergences of all pairs of classifiers."""

from typing import Any

import torch
from torch.nn import functional as F

from dhm.errors import InputError

IGNORED = -100
"""The label of an image or position that counts in no term, as in torch's cross-entropy."""


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, label_smoothing: float = 0.0, ignore_index: int = IGNORED
) -> torch.Tensor:
    """Mean cross-entropy of logits (N, K) toward class indices (N,) or probabilities (N, K): torch's, but for classes
    that are impossible to both, which torch's gives as NaN where the target holds probabilities.

    Raises:
        InputError: a label that is no class (a GPU cannot tell).
    """
    if not target.is_floating_point():
        try:
            return F.cross_entropy(logits, target, ignore_index=ignore_index, label_smoothing=label_smoothing)
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


def rows(values: torch.Tensor) -> torch.Tensor:
    """(N, K, ...) -> (positions, K)."""
    return values if values.dim() == 2 else values.movedim(1, -1).flatten(0, -2)
