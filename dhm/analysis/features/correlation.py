"""Figure 4: are two branches alike? Correlations of their kernels, their nulls, and a second opinion.

Appendix H takes "the maximum from each 3x3 kernel of the middle layer in the residual blocks", normalises "across
channels and filters" and draws "the correlation matrices between the corresponding convolutional layers" of B0 and
B2. It does not say between what the correlations are, and the order of channels in two branches is arbitrary.
`READINGS` holds what the words can mean; every reading comes with what independent kernels would give.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from dhm.branches import MAIN, BranchedNet, answering
from dhm.errors import InputError

Matrix = np.ndarray
Reading = Callable[[Matrix, Matrix], Matrix]
ROUNDS = 50
"""Of assignments in a matching, at most."""


def paired_layers(net: BranchedNet) -> dict[str, tuple[Matrix, Matrix]]:
    """The 3x3 convolutions that B0 and B2 both have, as max-kernel matrices: "conv4_1" -> (B0's, B2's).

    Blocks are paired by stage and by index within it, and named as in the paper: stage 3 is conv4_x. Of a bottleneck
    the middle layer is taken, which is its only 3x3; of a block with two, the last. Pairs of different shape (a
    wider branch) are left out.

    Raises:
        InputError: the network has no B2, or there is no pair at all.
    """
    if "B2" not in net.heads:
        raise InputError(f"the network has no classifier 'B2'; it has {', '.join(net.heads)}")
    trunk, branch = _blocks(net.backbone, 0), _blocks(net.branches["B2"], max(net.roots["B2"], 0))
    pairs = {
        name: (max_kernel(trunk[name]), max_kernel(weight))
        for name, weight in branch.items()
        if name in trunk and trunk[name].shape == weight.shape
    }
    if not pairs:
        raise InputError("B0 and B2 have no 3x3 convolutions of the same shape in the same place")
    return pairs


def _blocks(own: nn.Module, root: int) -> dict[str, torch.Tensor]:
    """Weights (out, in, 3, 3) of the 3x3 layer of every block of a head's own stages, which come after `root`."""
    found = {}
    for stage, modules in enumerate(getattr(own, "stages", ()), start=root + 1):
        blocks = [block for part in modules if isinstance(part, nn.Sequential) for block in part]
        for index, block in enumerate(blocks, start=1):
            kernels = [m.weight for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
            if kernels:
                found[f"conv{stage + 1}_{index}"] = kernels[-1]
    return found


def max_kernel(weight: torch.Tensor) -> Matrix:
    """The largest entry of every kernel, normalised over channels and filters: (out, in, 3, 3) -> (out, in).

    Normalised means zero mean and unit deviation over the whole matrix.
    """
    largest = weight.detach().double().amax(dim=(2, 3)).cpu().numpy()
    return (largest - largest.mean()) / largest.std()


def between_filters(a: Matrix, b: Matrix) -> Matrix:
    """Pearson correlation of filter i of a with filter j of b over input channels: (out, out).

    Assumes that input channel c means the same in both branches; the order of the filters is free.
    """
    a, b = (m - m.mean(axis=1, keepdims=True) for m in (a, b))
    scale = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return (a @ b.T) / np.where(scale > 0, scale, np.inf)


def between_channels(a: Matrix, b: Matrix) -> Matrix:
    """Pearson correlation of input channel i of a with input channel j of b over filters: (in, in).

    Assumes that filter f is the same filter in both branches; the order of the input channels is free.
    """
    return between_filters(a.T, b.T)


def entry_by_entry(a: Matrix, b: Matrix) -> Matrix:
    """Product of the normalised entries (filter, channel) of both: (out, in); its mean is the matrices' correlation.

    The one reading whose axes are those of Figure 4's caption, input and output channels of one layer. Assumes that
    both orders are the same in both branches.
    """
    return a * b


READINGS: Mapping[str, Reading] = {
    "between filters": between_filters,
    "between channels": between_channels,
    "entry by entry": entry_by_entry,
}


@dataclass(frozen=True)
class Null:
    """A statistic beside what it is without the correspondence it claims.

    Attributes:
        observed: its value.
        values: its values under permutations, (permutations,).
    """

    observed: float
    values: np.ndarray

    @property
    def p(self) -> float:
        """Share of the permutations, and of the observation itself, that come as high: one-sided."""
        return float((1 + (self.values >= self.observed).sum()) / (1 + len(self.values)))

    @property
    def z(self) -> float:
        """Observation in standard deviations of the null from its mean."""
        return float((self.observed - self.values.mean()) / self.values.std())


def root_mean_square(correlations: Matrix) -> float:
    """How far a map is from zero; 1 / sqrt(n - 1) for correlations of independent profiles of length n."""
    return float(np.sqrt(np.mean(correlations**2)))


def permutation_null(
    reading: Reading, statistic: Callable[[Matrix], float], a: Matrix, b: Matrix, permutations: int,
    rng: np.random.Generator,
) -> Null:  # fmt: skip
    """A statistic of a reading where filters and input channels of b are shuffled, each as wholes.

    That is the hypothesis that no order corresponds. A correlation of shuffled profiles of length n has mean 0 and
    standard deviation 1 / sqrt(n - 1), exactly, over all permutations.
    """
    values = [
        statistic(reading(a, b[rng.permutation(len(b))][:, rng.permutation(b.shape[1])])) for _ in range(permutations)
    ]
    return Null(statistic(reading(a, b)), np.array(values))


def match(a: Matrix, b: Matrix) -> tuple[float, np.ndarray, np.ndarray]:
    """Reorder filters and input channels of b to correlate with a as highly as can be found.

    For a given order of the channels the best order of the filters is a linear assignment, and the other way about,
    so both alternate until neither improves. Each ascent ends in a local optimum; the better is kept of two starts,
    the given order of channels and the one in which the sorted entries of channels fit best, which no reordering of
    filters changes.

    Returns:
        The Pearson correlation of a with b[rows][:, columns], rows, and columns.
    """
    distance = ((np.sort(a, axis=0)[:, :, None] - np.sort(b, axis=0)[:, None, :]) ** 2).sum(axis=0)
    starts = np.arange(b.shape[1]), linear_sum_assignment(distance)[1]
    return max((_ascend(a, b, start) for start in starts), key=itemgetter(0))


def _ascend(a: Matrix, b: Matrix, columns: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    best = -np.inf
    for _ in range(ROUNDS):
        rows = linear_sum_assignment(a @ b[:, columns].T, maximize=True)[1]
        columns = linear_sum_assignment(a.T @ b[rows], maximize=True)[1]
        fit = float((a * b[rows][:, columns]).sum())
        if fit <= best * (1 + 1e-12):
            break
        best = fit
    return float(np.corrcoef(a.ravel(), b[rows][:, columns].ravel())[0, 1]), rows, columns


def matching_null(a: Matrix, b: Matrix, permutations: int, rng: np.random.Generator) -> Null:
    """The best correlation `match` finds, beside what it finds where every filter of b has its own entries shuffled.

    Matching finds structure in noise, so its own null is needed. Shuffled within filters, b keeps each filter's
    entries, and with them its mean and scale, but no channel is the same channel in two filters.
    """
    values = [match(a, rng.permuted(b, axis=1))[0] for _ in range(permutations)]
    return Null(match(a, b)[0], np.array(values))


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of features (N, P) and (N, Q) from unbiased estimates of HSIC (Song et al.).

    1 for features that are rotations and scalings of each other, about 0 for independent ones. The plain estimator
    is far above 0 for these; the debiased one also needs N well above P and Q for a small variance (N >= 10 P).

    Raises:
        InputError: different numbers of images, or fewer than 4.
    """
    if len(x) != len(y) or len(x) < 4:
        raise InputError(f"CKA needs features of the same 4 or more images, not of {len(x)} and {len(y)}")
    k, l = (_gram(z) for z in (x, y))  # noqa: E741
    return float(_hsic(k, l) / np.sqrt(_hsic(k, k) * _hsic(l, l)))


def _gram(z: np.ndarray) -> np.ndarray:
    centred = z.astype(float) - z.mean(axis=0)
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0)
    return gram


def _hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Unbiased HSIC of two Gram matrices without their diagonals."""
    n, rows_k, rows_l = len(k), k.sum(axis=1), l.sum(axis=1)
    both = (k * l).sum() + rows_k.sum() * rows_l.sum() / ((n - 1) * (n - 2)) - 2 * (rows_k @ rows_l) / (n - 2)
    return float(both / (n * (n - 3)))


@torch.no_grad()
def descriptors(net: BranchedNet, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Pooled features (N, P) of every classifier, what its last linear layer sees, in eval mode."""
    with answering(net):
        inner = net.representations(images)
        found = {MAIN: net.backbone.descriptor(inner[max(inner)])}
        for name, root in net.roots.items():
            found[name] = net.branches[name].features(inner[root])  # type: ignore[operator]
    return {name: features.cpu().numpy() for name, features in found.items()}
