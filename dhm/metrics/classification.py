"""What every classifier predicts of each test image, and errors from it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

TOP = 5


@dataclass(frozen=True)
class Predictions:
    """What each classifier says of each test image, (heads, N); enough for error, likelihood and calibration.

    Attributes:
        heads: names of the classifiers, B0 first.
        labels: (N,) true classes.
        predicted: most probable class.
        confidence: its probability.
        nll: negative log-probability of the true class, in nats.
        rank: how many classes come before the true one, by probability and of equals by index; below 5 counts as right
            for top-5.
    """

    heads: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    nll: np.ndarray
    rank: np.ndarray

    def __len__(self) -> int:
        """How many images were tested."""
        return len(self.labels)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per classifier: top-1 and top-5 error in percent, mean negative log-likelihood, calibration error."""
        return {
            head: {
                "top1_error": 100 * float(np.mean(self.predicted[i] != self.labels)),
                "top5_error": 100 * float(np.mean(self.rank[i] >= TOP)),
                "nll": float(np.mean(self.nll[i], dtype=np.float64)),
                "ece": calibration_error(self.confidence[i], self.predicted[i] == self.labels),
            }
            for i, head in enumerate(self.heads)
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The table as arrays for a file, in the smallest types that keep it."""
        most = max(int(classes.max()) for classes in (self.labels, self.predicted, self.rank))
        whole = np.int16 if most <= np.iinfo(np.int16).max else np.int32
        return {
            "heads": np.array(self.heads),
            "labels": self.labels.astype(whole),
            "predicted": self.predicted.astype(whole),
            "confidence": self.confidence.astype(np.float32),
            "nll": self.nll.astype(np.float32),
            "rank": self.rank.astype(whole),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Predictions":
        """The inverse of `arrays`.

        Raises:
            KeyError: an array is missing.
            ValueError: they are not those of one table.
        """
        heads, labels = arrays["heads"], arrays["labels"]
        rows = {name: arrays[name] for name in ("predicted", "confidence", "nll", "rank")}
        kinds = "".join(array.dtype.kind for array in (heads, labels, *rows.values()))
        one = heads.ndim == labels.ndim == 1 and {array.shape for array in rows.values()} == {
            heads.shape + labels.shape
        }
        if not one or kinds != "Uiiffi" or not heads.size or not labels.size:
            raise ValueError("its arrays are not those of one table of classifiers and images")
        return cls(tuple(str(head) for head in heads), labels, **rows)


def judge(logits: Mapping[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """One batch of logits as numbers per head and image, (heads, N, 4): predicted, confidence, nll, rank.

    Logits that are no numbers are an answer to no class: -1, as sure as not at all, behind all others.
    """
    block = torch.stack([z.double() for z in logits.values()])
    log_probability = F.log_softmax(block, dim=-1)
    top = log_probability.max(dim=-1)
    true = log_probability.gather(-1, labels.expand(len(block), -1)[..., None])
    # half precision leaves many logits equal: a true class that shares its place must not win it for that
    earlier = torch.arange(block.shape[-1], device=labels.device) < labels[:, None]
    rank = ((log_probability > true) | (log_probability == true) & earlier).sum(dim=-1)
    judged = torch.stack([top.indices.double(), top.values.exp(), -true[..., 0], rank.double()], dim=-1)
    no_answer = judged.new_tensor([-1, 0, math.nan, block.shape[-1]])
    return torch.where(log_probability.isnan().any(dim=-1, keepdim=True), no_answer, judged)


def collect(heads: Iterable[str], judged: torch.Tensor, labels: torch.Tensor) -> Predictions:
    """`judge`'s rows of a whole test set, (heads, N, 4), as a table of predictions."""
    predicted, confidence, nll, rank = judged.cpu().numpy().transpose(2, 0, 1)
    return Predictions(
        tuple(heads), labels.cpu().numpy(), predicted.astype(int), confidence, nll.astype(float), rank.astype(int)
    )


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017): mean |accuracy - confidence|."""
    bins = 15
    index = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gaps = np.bincount(index, weights=correct.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
