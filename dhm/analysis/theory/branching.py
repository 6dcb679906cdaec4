"""Eq. 11 on trained networks: its terms where two classifiers part, under the noise of the real augmentation."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import pandas as pd
import torch

from dhm.analysis.theory.eq11 import TERMS, Head, expand_value, mimicking, slope, split
from dhm.analysis.theory.perturbation import Integrand, Isotropic, Measured, Perturbation, monte_carlo
from dhm.analysis.variants import spoken
from dhm.branches import IMAGE, MAIN, BranchedNet
from dhm.data.images import Images, crop_and_flip
from dhm.errors import InputError
from dhm.randomness import generator


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


@torch.no_grad()
def augmented_representations(
    net: BranchedNet, root: int, images: Images, copies: int, rng: torch.Generator
) -> torch.Tensor:
    """Representations after stage `root` of every image, augmented `copies` times as in training.

    Eval mode, float64: (copies, N, *shape).
    """
    copy = deepcopy(net.backbone).cpu().double().eval()
    views = (images.normalise(crop_and_flip(images.pixels, rng, images.crop)).double() for _ in range(copies))
    return torch.stack([copy.representations(view)[root] for view in views])


def measure(
    net: BranchedNet, student: str, teacher: str, images: Images, *, copies: int, scales: Sequence[float], pairs: int,
    probes: int, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """The three second-order parts of the mimicking term, means over images, at several sizes of the noise.

    The centre h of each image is the mean of its augmented representations, the only one around which the noise has
    mean zero as Eq. 10 asks. Noise: "real augmentation" (the samples themselves, scale 1), "measured covariance"
    (Gaussian with their covariance times scale squared), "isotropic" (Gaussian of the same total variance, averaged
    over images). How: "finite" is the exact split at that size (for Gaussian noise by sampling, so the curvatures
    are those of a smoothed function), "autodiff" the almost-everywhere derivatives.

    Args:
        copies: augmented views of each image.
        scales: sizes of the noise, 1 being that of the real augmentation.
        pairs: antithetic pairs for each image.
        probes: random directions of the isotropic traces.

    Returns:
        Columns noise, how, scale, part ("gradient", "student", "teacher"), value (its contribution to the term),
        relative (over the mean zeroth-order term), error (standard error of relative over images).
    """
    root, phi1, phi2 = heads_after(net, student, teacher)
    samples = augmented_representations(net, root, images, copies, generator(seed, 0))
    h, shape = samples.mean(dim=0), tuple(samples.shape[2:])
    measured = Measured.of(samples)
    unit = float(measured.variance.mean() / h[0].numel()) ** 0.5  # sigma of isotropic noise of that total variance
    rows: list[dict] = []

    def note(noise: str, how: str, scale: float, parts: torch.Tensor) -> None:
        """Parts (N, 3) of every image."""
        for part, value in zip(TERMS[1:], parts.T, strict=True):
            relative = value.mean() / zeroth.mean()
            error = (value - relative * zeroth).std() / zeroth.mean() / len(value) ** 0.5
            rows.append({"noise": noise, "how": how, "scale": scale, "part": part, "value": float(value.mean()),
                         "relative": float(relative), "error": float(error)})  # fmt: skip

    noises: dict[str, tuple[Perturbation, float]] = {
        "measured covariance": (measured, 1.0), "isotropic": (Isotropic(shape), unit),
    }  # fmt: skip
    for index, (noise, (perturbation, sigma)) in enumerate(noises.items(), start=1):
        rng = generator(seed, index)
        terms = expand_value(phi1, phi2, h, perturbation.directions(probes, rng)).terms.sum(dim=-1)
        zeroth = terms[0]
        if index == 1:
            note("real augmentation", "finite", 1.0, split(phi1, phi2, h, samples - h).mean(dim=0))
        for scale in scales:
            note(noise, "autodiff", scale, (scale * sigma) ** 2 * terms[1:].T)
            parts, _ = monte_carlo(lambda xi: split(phi1, phi2, h, xi), perturbation, len(h), scale * sigma, pairs, rng)
            note(noise, "finite", scale, parts)
    return pd.DataFrame(rows)


def measure_pairs(
    nets: Mapping[tuple[str, int], BranchedNet], images: Images, *, pairs: int, probes: int, copies: int = 24,
    scales: Sequence[float] = (1.0, 0.25),
) -> pd.DataFrame:  # fmt: skip
    """`measure` of several networks, B0 learning from B2 and B2 from B0, with the columns method, seed and pair.

    Args:
        nets: (method, seed) -> network.
    """
    return pd.concat(
        [
            measure(net, student, teacher, images, copies=copies, scales=scales, pairs=pairs, probes=probes)
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


def curvatures(measured: pd.DataFrame, pair: str = "B0 ← B2") -> pd.DataFrame:
    """The parts of a pair under noise of the measured covariance, over the size of the noise squared: on a smooth head
    the same at every size and in both ways. Means over seeds."""
    rows = measured[(measured["noise"] == "measured covariance") & (measured["pair"] == pair)]
    rows = rows.assign(unit=rows["relative"] / rows["scale"] ** 2)
    table = rows.pivot_table(index=["method", "part"], columns=["how", "scale"], values="unit", sort=False)
    return table.round(3).rename(index=spoken, level="method")


def residuals(
    nets: Mapping[str, BranchedNet], images: Images, sizes: Sequence[float], *, copies: int = 24, pairs: int = 64
) -> tuple[dict[str, dict[str, tuple[list[float], float]]], dict[str, list[float]]]:
    """Both expansions of B0 learning from B2 against the expectation, by sampling, over the size of the noise.

    Args:
        nets: title -> network.
        sizes: of noise with the augmentation's covariance, 1 being its own.

    Returns:
        title -> "printed" and "full" -> (distance from the expectation at every size, fitted slope), and title ->
        standard error of the expectation at every size.
    """
    found, errors = {}, {}
    for title, net in nets.items():
        root, student, teacher = heads_after(net, MAIN, "B2")
        samples = augmented_representations(net, root, images, copies, generator(0))
        h, noise = samples.mean(dim=0), Measured.of(samples)
        expansion = expand_value(student, teacher, h, noise.directions(0, generator(0)))

        term = _summed(student, teacher, h)
        drawn = [monte_carlo(term, noise, len(h), size, pairs, generator(1)) for size in sizes]
        expanded = {"printed": expansion.printed, "full": expansion.full}
        missed = {
            kind: [
                float((mean - expand(size).sum(dim=-1)).norm()) for size, (mean, _) in zip(sizes, drawn, strict=True)
            ]
            for kind, expand in expanded.items()
        }
        found[title] = {kind: (values, slope(sizes, values)) for kind, values in missed.items()}
        errors[title] = [float(error.norm()) for _, error in drawn]
    return found, errors


def _summed(student: Head, teacher: Head, h: torch.Tensor) -> Integrand:
    """The mimicking term at perturbations of the points h, summed over classes."""
    return lambda xi: mimicking(student, teacher, h, xi).sum(dim=-1)
