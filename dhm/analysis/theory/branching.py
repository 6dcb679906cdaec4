"""Eq. 11 on trained networks: its terms where two classifiers part, under the noise of the real augmentation."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial

import pandas as pd
import torch

from dhm.analysis.theory.eq11 import KINDS, TERMS, Head, expand_value, mimicking, slope, split
from dhm.analysis.theory.perturbation import Isotropic, Measured, monte_carlo
from dhm.analysis.variants import spoken
from dhm.branches import IMAGE, MAIN, BranchedNet
from dhm.config import Config
from dhm.data import Images, load
from dhm.data.images import crop_and_flip
from dhm.errors import InputError
from dhm.randomness import generator

COPIES, PAIRS = 24, 64
"""Augmented views of each image; antithetic pairs where the expansions are held against the expectation."""
SCALES = (1.0, 0.25)
"""Sizes of the noise, 1 being that of the real augmentation."""


def heads_after(net: BranchedNet, first: str, second: str) -> tuple[int, Head, Head]:
    """Where two classifiers of a network part, and each as a function of the representation there.

    Returns:
        The stage after which the first of the two leaves the other's path, and the two heads from there on: eval
        mode, float64, on a copy of the network.
    """
    for name in (first, second):
        if name not in net.heads:
            raise InputError(f"the network has no classifier {name!r}; it has {', '.join(net.heads)}")
    copy = deepcopy(net).cpu().double().eval().requires_grad_(False)
    ends = {MAIN: len(copy.backbone.stages), **copy.roots}
    root = min(ends[first], ends[second])
    if root == IMAGE:
        raise InputError(f"{first} and {second} share nothing, so they have no common representation")

    def head(name: str) -> Head:
        trunk = copy.backbone.stages[root : ends[name]]

        def probabilities(h: torch.Tensor) -> torch.Tensor:
            for stage in trunk:
                h = stage(h)
            if name == MAIN:
                return copy.backbone.classifier(copy.backbone.descriptor(h)).softmax(dim=-1)
            return copy.branches[name](h).softmax(dim=-1)

        return probabilities

    return root, head(first), head(second)


def perturbed_images(config: Config, count: int, download: bool = False) -> Images:
    """The test images whose representations are perturbed, at equal distances over the set.

    Args:
        download: fetch CIFAR-100 if it is missing.

    Raises:
        InputError: fewer than two, since errors are over images, or images that are not kept in memory.
    """
    if count < 2:
        raise InputError(f"images must be at least 2, not {count}")
    if config.streamed:
        raise InputError(
            f"the images of {config.dataset_name} are cut out anew each time they are read, and Eq. 11 is looked at "
            "on images in memory, under crops of at most 4 pixels; take a network of CIFAR-100's"
        )
    images = load(config, download=download).test
    assert isinstance(images, Images), "images in memory, since they are not streamed"
    return images.spread(count)


@torch.no_grad()
def augmented_representations(net: BranchedNet, root: int, images: Images, rng: torch.Generator) -> torch.Tensor:
    """Representations after stage `root` of every image, augmented `COPIES` times as in training.

    Eval mode, float64: (COPIES, N, *shape).
    """
    copy = deepcopy(net.backbone).cpu().double().eval()
    views = (images.normalise(crop_and_flip(images.pixels, rng, images.crop)).double() for _ in range(COPIES))
    return torch.stack([copy.representations(view)[root] for view in views])


def at_their_root(
    net: BranchedNet, student: str, teacher: str, images: Images, rng: torch.Generator
) -> tuple[Head, Head, torch.Tensor, torch.Tensor]:
    """Both classifiers' heads, the points h (N, *shape) where they part, and the samples h is the mean of."""
    root, phi1, phi2 = heads_after(net, student, teacher)
    samples = augmented_representations(net, root, images, rng)
    return phi1, phi2, samples.mean(dim=0), samples


def measure(net: BranchedNet, student: str, teacher: str, images: Images, *, pairs: int, probes: int) -> pd.DataFrame:
    """The three second-order parts of the mimicking term, means over images, at several sizes of the noise.

    The centre h of each image is the mean of its augmented representations, the only one around which the noise has
    mean zero as Eq. 10 asks. Noise: "real augmentation" (the samples themselves, scale 1), "measured covariance"
    (Gaussian with their covariance times scale squared), "isotropic" (Gaussian of the same total variance, averaged
    over images). How: "finite" is the exact split at that size (for Gaussian noise by sampling, so the curvatures
    are those of a smoothed function), "autodiff" the almost-everywhere derivatives.

    Args:
        pairs: antithetic pairs for each image.
        probes: random directions of the isotropic traces.

    Returns:
        Columns noise, how, scale (1 is the augmentation's own), part ("gradient", "student", "teacher"), value (its
        contribution to the term), relative (over the mean zeroth-order term), error (standard error of relative over
        images).
    """
    phi1, phi2, h, samples = at_their_root(net, student, teacher, images, generator(0, 0))
    measured = Measured.of(samples)
    unit = float(measured.variance.mean() / h[0].numel()) ** 0.5  # sigma of isotropic noise of that total variance
    noises: dict[str, tuple[Isotropic | Measured, float]] = {
        "measured covariance": (measured, 1.0),
        "isotropic": (Isotropic(tuple(h.shape[1:])), unit),
    }
    zeroth = mimicking(phi1, phi2, h, torch.zeros_like(h)[None])[0].sum(dim=-1)
    found = [("real augmentation", "finite", 1.0, split(phi1, phi2, h, samples - h).mean(dim=0))]
    for index, (noise, (perturbation, sigma)) in enumerate(noises.items(), start=1):
        rng = generator(0, index)
        terms = expand_value(phi1, phi2, h, perturbation.directions(probes, rng))[1:].sum(dim=-1).T
        for scale in SCALES:
            found.append((noise, "autodiff", scale, (scale * sigma) ** 2 * terms))
            parts, _ = monte_carlo(partial(split, phi1, phi2, h), perturbation, len(h), scale * sigma, pairs, rng)
            found.append((noise, "finite", scale, parts))
    rows = []
    for noise, how, scale, parts in found:  # of every image, (N, 3)
        for part, value in zip(TERMS[1:], parts.T, strict=True):
            relative = value.mean() / zeroth.mean()
            error = (value - relative * zeroth).std() / zeroth.mean() / len(value) ** 0.5
            rows.append({"noise": noise, "how": how, "scale": scale, "part": part, "value": float(value.mean()),
                         "relative": float(relative), "error": float(error)})  # fmt: skip
    return pd.DataFrame(rows)


def measure_pairs(
    nets: Mapping[tuple[str, int], BranchedNet], images: Images, *, pairs: int, probes: int
) -> pd.DataFrame:
    """`measure` of several networks, B0 learning from B2 and B2 from B0, with the columns method, seed and pair.

    Args:
        nets: (method, seed) -> network.
    """
    return pd.concat(
        [
            measure(net, student, teacher, images, pairs=pairs, probes=probes)
            .assign(method=method, seed=seed, pair=f"{student} ← {teacher}")
            for (method, seed), net in nets.items()
            for student, teacher in ((MAIN, "B2"), ("B2", MAIN))
        ],
        ignore_index=True,
    )  # fmt: skip


def parts(measured: pd.DataFrame) -> pd.DataFrame:
    """The parts of `measure_pairs` at the augmentation's own size side by side, means over seeds."""
    rows = measured[measured["scale"] == 1].groupby(["noise", "how", "method", "pair", "part"], sort=False)["relative"]
    return rows.mean().unstack().round(3).rename(index=spoken, level="method")


def curvatures(measured: pd.DataFrame) -> pd.DataFrame:
    """The parts of B0 learning from B2 under noise of the measured covariance, over the size of the noise squared: on a
    smooth head the same at every size and in both ways. Means over seeds."""
    rows = measured[(measured["noise"] == "measured covariance") & (measured["pair"] == "B0 ← B2")]
    rows = rows.assign(unit=rows["relative"] / rows["scale"] ** 2)
    table = rows.pivot_table(index=["method", "part"], columns=["how", "scale"], values="unit", sort=False)
    return table.round(3).rename(index=spoken, level="method")


def residuals(
    nets: Mapping[str, BranchedNet], images: Images, sizes: Sequence[float]
) -> tuple[dict[str, dict[str, tuple[list[float], float]]], dict[str, list[float]]]:
    """Both expansions of B0 learning from B2 against the expectation, by sampling, over the size of the noise.

    Args:
        nets: title -> network.
        sizes: of noise with the augmentation's covariance, 1 being its own.

    Returns:
        title -> "printed" and "full" -> (distance from the expectation at every size, fitted slope), and title ->
        standard error of the expectation at every size.
    """
    found: dict[str, dict[str, tuple[list[float], float]]] = {}
    errors = {}
    for title, net in nets.items():
        student, teacher, h, samples = at_their_root(net, MAIN, "B2", images, generator(0))
        noise, term = Measured.of(samples), partial(_summed, student, teacher, h)
        terms, found[title] = expand_value(student, teacher, h, noise.factor), {}
        drawn = [monte_carlo(term, noise, len(h), size, PAIRS, generator(1)) for size in sizes]
        errors[title] = [float(error.norm()) for _, error in drawn]
        for kind, expand in KINDS.items():
            pairs = zip(sizes, drawn, strict=True)
            missed = [float((mean - expand(terms, size).sum(dim=-1)).norm()) for size, (mean, _) in pairs]
            found[title][kind] = missed, slope(sizes, missed)
    return found, errors


def _summed(student: Head, teacher: Head, h: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
    return mimicking(student, teacher, h, xi).sum(dim=-1)
