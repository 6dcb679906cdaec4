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

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from dhm.branches import MAIN, BranchedNet, answering
from dhm.data import ImageSet
from dhm.data.images import Batch
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


def held_out(images: ImageSet, micro: int, count: int) -> Iterator[Batch]:
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
    with frozen(net, batch_norm):
        logits = net.all_logits(images)
        total, _ = loss(logits, labels)
        starts = torch.autograd.grad(total, list(logits.values()), retain_graph=True)
        found: dict[int, dict[str, torch.Tensor]] = {stage: {} for stage in shared}
        for (head, z), start in zip(logits.items(), starts, strict=True):
            own = {stage: parameters[stage] for stage, heads in shared.items() if head in heads}
            gradients = iter(torch.autograd.grad(z, list(itertools.chain(*own.values())), start, retain_graph=True))
            for stage, several in own.items():
                found[stage][head] = torch.cat([next(gradients).flatten() for _ in several])
    return found


def consistency(net: BranchedNet, batches: Iterable[Batch], loss: DHMLoss, batch_norm: str) -> pd.DataFrame:
    """Cosines of the classifiers' gradients to the trunk: a row for every stage and pair of classifiers.

    Args:
        batches: (images, labels), held out from training; the mean gradient weighs every image alike.
        loss: whose gradients, see the head of this file.
        batch_norm: "batch" (each micro-batch by its own statistics, as in training) or "running" (as in testing).

    Returns:
        stage; first, second (classifiers); cosine (of the gradients over all images); batch_cosine, low, high (mean
        over the micro-batches and its 95 % t interval); conflicting (share of micro-batches with a cosine below
        zero); norm_first, norm_second (over all images); batches.
    """
    shared, count = sharing(net), 0
    grams: dict[int, list[torch.Tensor]] = {stage: [] for stage in shared}
    sums: dict[int, torch.Tensor] = {}
    for images, labels in batches:
        found = trunk_gradients(net, images, labels, loss, batch_norm)
        for stage, heads in shared.items():
            rows = torch.stack([found[stage][head] for head in heads]).double()
            grams[stage].append(rows @ rows.T)
            sums[stage] = sums.get(stage, 0.0) + rows * len(labels)
        count += len(labels)
    table = []
    for stage, heads in shared.items():
        mean = sums[stage] / count
        gram = torch.stack([*grams[stage], mean @ mean.T]).cpu().numpy()
        for i, j in itertools.combinations(range(len(heads)), 2):
            norms = np.sqrt(gram[:, [i, j], [i, j]])
            with np.errstate(invalid="ignore", divide="ignore"):
                cosines = gram[:, i, j] / norms.prod(axis=1)
            single = cosines[:-1]
            half = stats.t.ppf(0.975, len(single) - 1) * stats.sem(single) if len(single) > 1 else np.nan
            table.append(
                {"stage": stage, "first": heads[i], "second": heads[j], "cosine": cosines[-1],
                 "batch_cosine": single.mean(), "low": single.mean() - half, "high": single.mean() + half,
                 "conflicting": float((single < 0).mean()), "norm_first": norms[-1, 0],
                 "norm_second": norms[-1, 1], "batches": len(single)}
            )  # fmt: skip
    return pd.DataFrame(table)
