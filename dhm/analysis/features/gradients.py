"""Do the classifiers pull the shared trunk the same way? Cosines between the gradients they send to it.

The paper argues that classifiers "could hamper the overall training procedure" when their optimisation directions
disagree (section 3.2), and does not measure it. Here it is measured, stage by stage. Pass `DHMLoss("dsl")` to compare
the gradients of the cross-entropies alone, which is the fair measure. Under `DHMLoss("dhm")` the mimicking terms shape
the gradients by construction (of a pair, the two start from opposite differences of their predictions), so that
comparison stands apart.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from dhm.branches import MAIN, BranchedNet, answering
from dhm.data.images import Batch, Images
from dhm.errors import InputError
from dhm.losses import DHMLoss

BATCH_NORM = ("batch", "running")


def sharing(net: BranchedNet) -> dict[int, tuple[str, ...]]:
    """Stage of the trunk (0 the stem) -> the classifiers whose paths share its parameters, two or more."""
    ends = {MAIN: len(net.backbone.stages), **net.roots}
    paths = {stage: tuple(head for head in net.heads if ends[head] >= stage) for stage in _parameters(net)}
    return {stage: heads for stage, heads in paths.items() if len(heads) > 1}


def _parameters(net: BranchedNet) -> dict[int, list[nn.Parameter]]:
    """Parameters of every stage of the trunk that has any."""
    stages = (net.backbone.stem, *net.backbone.stages)
    found = {i: [p for p in stage.parameters() if p.requires_grad] for i, stage in enumerate(stages)}
    return {stage: parameters for stage, parameters in found.items() if parameters}


def held_out(images: Images, micro: int, count: int) -> Iterator[Batch]:
    """`count` images in micro-batches, in an order drawn once for all: a set read from folders is sorted by class."""
    return itertools.islice(images.train_batches(micro, 0, 0, augment="none"), -(-count // micro))


@contextmanager
def frozen(net: BranchedNet, batch_norm: str) -> Iterator[None]:
    """Without dropout, and with batch norm by the statistics of the "batch" or the "running" ones; both unchanged."""
    if batch_norm not in BATCH_NORM:
        raise InputError(f"batch_norm must be one of {', '.join(BATCH_NORM)}, not {batch_norm!r}")
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    with answering(net):
        if batch_norm == "batch":
            for norm in norms:
                norm.training, norm.track_running_stats = True, False
        try:
            yield
        finally:
            for norm in norms:
                norm.track_running_stats = True


def trunk_gradients(
    net: BranchedNet, images: torch.Tensor, labels: torch.Tensor, loss: DHMLoss, batch_norm: str
) -> dict[int, dict[str, torch.Tensor]]:
    """What every classifier sends to the stages it shares, from one forward pass: stage -> classifier -> (P,).

    A classifier's part of the loss is what depends on its own logits, the teachers' being constants; its gradient
    starts from the loss's gradient by these logits and goes back along its path alone. The parts of all
    classifiers add up to the gradient that training follows.
    """
    if loss.method == "baseline":
        raise InputError('the method "baseline" gives one classifier a loss; take DHMLoss("dsl") or DHMLoss("dhm")')
    shared, parameters = sharing(net), _parameters(net)
    if not shared:
        raise InputError(f"the classifiers {', '.join(net.heads)} share no layer")
    everything = [p for stage in shared for p in parameters[stage]]
    with frozen(net, batch_norm):
        logits = net.all_logits(images)
        total, _ = loss(logits, labels)
        starts = torch.autograd.grad(total, list(logits.values()), retain_graph=True)
        found: dict[int, dict[str, torch.Tensor]] = {stage: {} for stage in shared}
        for (head, z), start in zip(logits.items(), starts, strict=True):
            gradients = iter(torch.autograd.grad(z, everything, start, retain_graph=True, allow_unused=True))
            for stage, heads in shared.items():
                parts = [next(gradients) for _ in parameters[stage]]
                if head in heads:
                    found[stage][head] = torch.cat([part.flatten() for part in parts])
    return found


@dataclass(frozen=True)
class TrunkProducts:
    """Inner products of the classifiers' gradients: stage -> (batches + 1, heads, heads), float64.

    The last entry is of the gradients averaged over all images; heads are those of `sharing`.
    """

    heads: dict[int, tuple[str, ...]]
    products: dict[int, np.ndarray]
    images: int

    def table(self, confidence: float = 0.95) -> pd.DataFrame:
        """A row for every stage and pair of classifiers.

        Columns: stage; first, second (classifiers); cosine (of the gradients over all images); batch_cosine, low,
        high (mean over the micro-batches and its t interval); conflicting (share of micro-batches with a cosine
        below zero); norm_first, norm_second (over all images); batches.
        """
        rows = []
        for stage, heads in self.heads.items():
            for i, j in itertools.combinations(range(len(heads)), 2):
                gram = self.products[stage]
                norms = np.sqrt(gram[:, [i, j], [i, j]])
                with np.errstate(invalid="ignore", divide="ignore"):
                    cosines = gram[:, i, j] / norms.prod(axis=1)
                single = cosines[:-1]
                half = np.nan
                if len(single) > 1:
                    half = stats.t.ppf((1 + confidence) / 2, len(single) - 1) * stats.sem(single)
                rows.append(
                    {"stage": stage, "first": heads[i], "second": heads[j], "cosine": cosines[-1],
                     "batch_cosine": single.mean(), "low": single.mean() - half, "high": single.mean() + half,
                     "conflicting": float((single < 0).mean()), "norm_first": norms[-1, 0],
                     "norm_second": norms[-1, 1], "batches": len(single)}
                )  # fmt: skip
        return pd.DataFrame(rows)


def consistency(net: BranchedNet, batches: Iterable[Batch], loss: DHMLoss, batch_norm: str) -> TrunkProducts:
    """Inner products of all classifiers' gradients to the trunk, for every micro-batch and over all images.

    Args:
        batches: (images, labels), held out from training; the mean gradient weighs every image alike.
        loss: whose gradients, see the head of this file.
        batch_norm: "batch" (each micro-batch by its own statistics, as in training) or "running" (as in testing).
    """
    heads, count = sharing(net), 0
    if not heads:
        raise InputError("the network has no branch, so no two classifiers share a trunk")
    grams: dict[int, list[np.ndarray]] = {stage: [] for stage in heads}
    sums: dict[int, torch.Tensor] = {}
    for images, labels in batches:
        found = trunk_gradients(net, images, labels, loss, batch_norm)
        for stage, names in heads.items():
            rows = torch.stack([found[stage][name] for name in names]).double()
            grams[stage].append((rows @ rows.T).cpu().numpy())
            sums[stage] = sums.get(stage, 0.0) + rows * len(labels)
        count += len(labels)
    for stage, total in sums.items():
        mean = total / count
        grams[stage].append((mean @ mean.T).cpu().numpy())
    return TrunkProducts(heads, {stage: np.stack(values) for stage, values in grams.items()}, count)
