"""Expansions of Eq. 10's mimicking term against closed forms, quadrature and sampling."""

import math
from pathlib import Path

import pytest
import torch
from conftest import small_config

import dhm
from dhm.analysis.theory import branching, eq11, smooth
from dhm.analysis.theory.perturbation import Isotropic, Measured, monte_carlo, quadrature
from dhm.analysis.theory.smooth import AXES, POINTS, smooth_head
from dhm.data.images import Images
from dhm.randomness import generator

SIGMAS = [0.02, 0.03, 0.045, 0.07, 0.1]


STUDENT, TEACHER = smooth_head(0), smooth_head(1)


def test_terms_of_two_logistic_heads_in_one_dimension() -> None:
    """phi = softmax(0, w h): with s the logistic function, all derivatives are known in closed form."""
    w1, w2, h = 0.7, -1.3, torch.tensor([[-0.4], [0.0], [1.1]], dtype=torch.float64)

    def head(w: float) -> eq11.Head:
        return lambda x: torch.cat([torch.zeros_like(x), w * x], dim=-1).softmax(dim=-1)

    terms = eq11.expand_value(head(w1), head(w2), h, torch.ones(1, 1, 1, dtype=torch.float64))
    gradients = eq11.expand_gradient(head(w1), head(w2), h, torch.ones(1, 1, 1, dtype=torch.float64))
    for n, x in enumerate(h[:, 0].tolist()):
        p, q = (1 / (1 + math.exp(-w * x)) for w in (w1, w2))
        d1 = w1**2 * p * (1 - p)  # minus the second derivative of log phi1, the same for both classes
        log1 = [math.log(1 - p), math.log(p)]
        slope1 = [-w1 * p, w1 * (1 - p)]
        phi2, slope2 = [1 - q, q], [-w2 * q * (1 - q), w2 * q * (1 - q)]
        bend2 = [s * w2 * (1 - 2 * q) for s in slope2]
        for k in range(2):
            expected = [-phi2[k] * log1[k], -slope2[k] * slope1[k], phi2[k] * d1 / 2, -log1[k] * bend2[k] / 2]
            torch.testing.assert_close(terms[:, n, k].tolist(), expected, rtol=0, atol=1e-10)
        d1_slope = d1 * w1 * (1 - 2 * p)
        expected = [
            -(phi2[0] * slope1[0] + phi2[1] * slope1[1]),
            d1 * (slope2[0] + slope2[1]),
            d1_slope / 2,
            -(bend2[0] * slope1[0] + bend2[1] * slope1[1]) / 2,
        ]
        torch.testing.assert_close(gradients[:, n, 0].tolist(), expected, rtol=0, atol=1e-10)


def test_second_order_terms_are_half_the_laplacian_of_the_term() -> None:
    """A second path: the Hessian of the whole term by torch.func, not of its factors."""
    terms = eq11.expand_value(STUDENT, TEACHER, POINTS, AXES)
    for n, point in enumerate(POINTS):
        hessian = torch.func.hessian(
            lambda x: eq11.mimicking(STUDENT, TEACHER, x[None], torch.zeros(1, 1, 2).double())[0, 0]
        )
        laplacian = hessian(point).diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        torch.testing.assert_close(terms[1:, n].sum(dim=0), laplacian / 2, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("exact", "expand", "axes"),
    [(eq11.mimicking, eq11.expand_value, -1), (eq11.student_gradient, eq11.expand_gradient, None)],
)
def test_order_of_the_remainders_on_smooth_heads(exact, expand, axes) -> None:
    """Eq. 11 as printed leaves sigma^2, the full expansion sigma^4: for the value and for the student's gradient."""
    expansion = expand(STUDENT, TEACHER, POINTS, AXES)
    printed, full = [], []
    for sigma in SIGMAS:
        value = quadrature(lambda xi: exact(STUDENT, TEACHER, POINTS, xi), sigma)
        printed.append(float((value - eq11.printed(expansion, sigma)).norm()))
        full.append(float((value - eq11.full(expansion, sigma)).norm()))
    assert eq11.slope(SIGMAS, printed) == pytest.approx(2, abs=0.1)
    assert eq11.slope(SIGMAS, full) == pytest.approx(4, abs=0.2)


def test_where_the_heads_agree_mimicking_is_a_penalty_on_inconsistent_gradients() -> None:
    """E KL by quadrature against the square of finite differences, and Eq. 11's term is the square's cross term."""
    teacher, step = eq11.agreeing(TEACHER, STUDENT, POINTS), 1e-5
    torch.testing.assert_close(teacher(POINTS), STUDENT(POINTS))

    def slopes(head) -> list[torch.Tensor]:
        return [(head(POINTS + step * axis).log() - head(POINTS - step * axis).log()) / (2 * step) for axis in AXES]

    pairs = list(zip(slopes(STUDENT), slopes(teacher), strict=True))
    square = sum(STUDENT(POINTS) * (a - b).square() / 2 for a, b in pairs).sum(dim=-1)
    torch.testing.assert_close(eq11.inconsistency(STUDENT, teacher, POINTS, AXES), square, rtol=1e-6, atol=0)
    cross = -sum(STUDENT(POINTS) * a * b for a, b in pairs)
    torch.testing.assert_close(eq11.expand_value(STUDENT, teacher, POINTS, AXES)[1], cross, rtol=1e-6, atol=1e-8)
    missed = []
    for sigma in SIGMAS:
        average = quadrature(lambda xi: eq11.divergence(STUDENT, teacher, POINTS, xi), sigma)
        missed.append(float((average - sigma**2 * square).norm()))
    assert eq11.slope(SIGMAS, missed) == pytest.approx(4, abs=0.2)
    ratios, penalty = smooth.where_they_agree(0, 1, [0.01, 0.1])
    assert ratios[0] == pytest.approx(penalty, rel=2e-3)


def test_gradient_of_one_class_from_a_masked_teacher() -> None:
    parts = []
    for k in range(3):
        mask = torch.eye(3, dtype=torch.float64)[k]
        parts.append(eq11.expand_gradient(STUDENT, lambda h, mask=mask: TEACHER(h) * mask, POINTS, AXES))
    torch.testing.assert_close(sum(parts), eq11.expand_gradient(STUDENT, TEACHER, POINTS, AXES))


@pytest.mark.parametrize("quantity", [eq11.mimicking, eq11.student_gradient, eq11.split])
def test_sampling_agrees_with_quadrature_within_its_error(quantity) -> None:
    def f(xi: torch.Tensor) -> torch.Tensor:
        return quantity(STUDENT, TEACHER, POINTS, xi)

    truth = quadrature(f, 0.3)
    mean, error = monte_carlo(f, Isotropic((2,)), len(POINTS), 0.3, 2000, generator(3))
    z = (mean - truth) / error
    assert z.abs().max() < 4
    assert 0.3 < z.square().mean() < 2.5
    plain = torch.randn(2000, 3, 2, generator=generator(4), dtype=torch.float64) * 0.3
    assert (error < f(plain).std(dim=0) / 2000**0.5 / 3).all()  # what pairs and controls are for


def test_standard_error_is_calibrated() -> None:
    """Over 200 repetitions the deviations from quadrature have the spread the errors claim."""

    def f(xi: torch.Tensor) -> torch.Tensor:
        return eq11.mimicking(STUDENT, TEACHER, POINTS[:1], xi).sum(dim=-1)

    truth = quadrature(f, 0.5)
    runs = [monte_carlo(f, Isotropic((2,)), 1, 0.5, 80, generator(5, i)) for i in range(200)]
    z = torch.stack([(mean - truth) / error for mean, error in runs])
    assert abs(float(z.mean())) < 0.25
    assert 0.85 < float(z.std()) < 1.25


def test_parts_of_the_split_add_up_and_become_the_expansion() -> None:
    xi = torch.randn(50, 3, 2, generator=generator(6), dtype=torch.float64)
    total = eq11.mimicking(STUDENT, TEACHER, POINTS, xi).sum(-1)
    change = total - eq11.mimicking(STUDENT, TEACHER, POINTS, torch.zeros_like(xi)).sum(-1)
    torch.testing.assert_close(eq11.split(STUDENT, TEACHER, POINTS, xi).sum(-1), change)
    parts = quadrature(lambda xi: eq11.split(STUDENT, TEACHER, POINTS, xi), 1e-3) / 1e-6
    expected = eq11.expand_value(STUDENT, TEACHER, POINTS, AXES)[1:].sum(-1).T
    torch.testing.assert_close(parts, expected, rtol=1e-4, atol=1e-5)


def test_measured_covariance_is_the_sample_covariance() -> None:
    samples = torch.randn(6, 4, 3, 2, generator=generator(7), dtype=torch.float64)
    measured = Measured.of(samples)
    assert measured.factor.shape == (5, 4, 3, 2)
    for n in range(4):
        flat = measured.factor[:, n].flatten(1)
        torch.testing.assert_close(flat.T @ flat, torch.cov(samples[:, n].flatten(1).T))
    torch.testing.assert_close(measured.variance, samples.flatten(2).var(dim=0).sum(-1))
    draws, _ = measured.sample(4, 40_000, generator(8))
    torch.testing.assert_close(
        torch.cov(draws[:, 0].flatten(1).T), torch.cov(samples[:, 0].flatten(1).T), rtol=0, atol=0.06
    )


def test_expansion_under_a_measured_covariance() -> None:
    """E f under the measured covariance, by quadrature in whitened coordinates, against the full expansion."""
    measured = Measured.of(torch.randn(3, 1, 2, generator=generator(9), dtype=torch.float64))
    factor = measured.factor[:, 0]
    expansion = eq11.expand_value(STUDENT, TEACHER, POINTS[:1], measured.factor)
    residuals = [
        float((quadrature(lambda z: eq11.mimicking(STUDENT, TEACHER, POINTS[:1], z @ factor), s)
               - eq11.full(expansion, s)).norm())
        for s in SIGMAS
    ]  # fmt: skip
    assert eq11.slope(SIGMAS, residuals) == pytest.approx(4, abs=0.2)


def test_random_probes_estimate_the_exact_trace() -> None:
    """In 40 dimensions, of which smooth heads read two mixtures: the mean over many draws of 39 signs."""
    mixture = torch.randn(40, 2, generator=generator(11), dtype=torch.float64) / 40**0.5
    heads = [lambda h, seed=seed: smooth_head(seed)(h @ mixture) for seed in (10, 11)]
    points = torch.randn(5, 40, generator=generator(12), dtype=torch.float64)

    def second_order(probes: int, draw: int) -> torch.Tensor:
        directions = Isotropic((40,)).directions(probes, generator(draw))
        return eq11.expand_value(*heads, points, directions)[1:].sum(-1)

    drawn = torch.stack([second_order(39, draw) for draw in range(30)])
    z = (drawn.mean(dim=0) - second_order(40, 0)) / (drawn.std(dim=0) / 30**0.5)
    assert z.abs().max() < 4


@pytest.mark.parametrize(
    ("name", "options"),
    [("cifar_resnet", {"depth": 8}), ("densenet", {"depth": 7, "growth": 4}), ("wrn", {"depth": 10, "width": 1})],
)
def test_heads_of_a_network_from_where_they_part(name: str, options: dict) -> None:
    torch.manual_seed(0)
    net = dhm.create_model(name, 5, **options)
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    images = Images(pixels, torch.zeros(4).long(), torch.full((3,), 0.5), torch.full((3,), 0.25))
    expected = {k: z.softmax(-1) for k, z in net.double().eval().all_logits(images.normalise(pixels).double()).items()}
    for first, second, root in (("B0", "B1", 2), ("B2", "B0", 1), ("B1", "B2", 1)):
        at, *heads = branching.heads_after(net, first, second)
        h = net.backbone.representations(images.normalise(pixels).double())[at]
        assert at == root
        for head, which in zip(heads, (first, second), strict=True):
            torch.testing.assert_close(head(h), expected[which])
    samples = branching.augmented_representations(net, 1, images, generator(0))
    assert samples.shape == (
        branching.COPIES,
        *net.backbone.representations(images.normalise(pixels).double())[1].shape,
    )
    assert not torch.equal(samples[0], samples[1])
    expansion = eq11.expand_value(*heads, h, Measured.of(samples).factor)
    assert expansion.isfinite().all()


def test_measured_parts_of_a_network() -> None:
    """The real samples give the exact change of their term; autodiff scales with the square of the noise."""
    torch.manual_seed(0)
    net = dhm.create_model("cifar_resnet", 5, depth=8)
    for module in [*net.modules()]:
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.Softplus())
    pixels = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=generator(1))
    images = Images(pixels, torch.zeros(6).long(), torch.full((3,), 0.5), torch.full((3,), 0.25))
    table = branching.measure(net, "B0", "B1", images, pairs=8, probes=4)
    assert len(table) == 3 * (1 + 2 * 2 * 2)
    at = table.set_index(["noise", "how", "scale", "part"])["value"]
    root, student, teacher = branching.heads_after(net, "B0", "B1")
    samples = branching.augmented_representations(net, root, images, generator(0, 0))
    h = samples.mean(dim=0)
    still = eq11.mimicking(student, teacher, h, torch.zeros_like(samples[:1]))
    change = (eq11.mimicking(student, teacher, h, samples - h) - still).sum(-1).mean()
    assert at["real augmentation"].sum() == pytest.approx(float(change))
    for part in ("gradient", "student", "teacher"):
        small, large = (at["measured covariance", "autodiff", s, part] for s in (0.25, 1.0))
        assert large == pytest.approx(16 * small)
    assert (table["error"] > 0).all()


def test_residuals_of_smooth_heads_are_those_of_their_courses() -> None:
    """By the definition: the norm of truth minus expansion, and the line through the logarithms."""
    sigmas = [0.05, 0.1]
    found = smooth.residuals(0, 1, sigmas)
    assert set(found) == set(smooth.QUANTITIES)
    truth = torch.stack([quadrature(lambda xi: eq11.mimicking(STUDENT, TEACHER, POINTS, xi), s) for s in sigmas])
    expansion = eq11.expand_value(STUDENT, TEACHER, POINTS, AXES)
    for kind, order in (("printed", 2), ("full", 4)):
        values, slope = found["value"][kind]
        distances = [float((t - eq11.KINDS[kind](expansion, s)).norm()) for t, s in zip(truth, sigmas, strict=True)]
        assert values == pytest.approx(distances)
        assert slope == pytest.approx(math.log2(values[1] / values[0]))
        assert slope == pytest.approx(order, abs=0.1)


def test_errors_of_sampling_are_standard_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    z = smooth.sampling_errors(0, 1, 0.3, 400)
    assert z.shape == (3, 3)
    assert 0.2 < float(z.square().mean()) < 3
    exact = smooth.quadrature
    monkeypatch.setattr(smooth, "quadrature", lambda *arguments: exact(*arguments) + 0.1)
    assert float(smooth.sampling_errors(0, 1, 0.3, 400).abs().max()) > 10


def test_tables_and_residuals_of_several_networks() -> None:
    """Pairs side by side, curvature over the size squared, and a network's residuals by a second way."""
    nets = {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets["dhm", seed] = dhm.create_model("cifar_resnet", 5, depth=8).eval()
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=generator(1))
    images = Images(pixels, torch.zeros(4).long(), torch.full((3,), 0.5), torch.full((3,), 0.25))
    options = {"pairs": 8, "probes": 4}
    measured = branching.measure_pairs(nets, images, **options)
    alone = branching.measure(nets["dhm", 1], "B2", "B0", images, **options)
    chosen = measured[(measured["seed"] == 1) & (measured["pair"] == "B2 ← B0")]
    assert chosen["value"].tolist() == alone["value"].tolist()
    mean = measured[(measured["pair"] == "B2 ← B0") & (measured["noise"] == "isotropic") & (measured["scale"] == 1)
                    & (measured["how"] == "finite") & (measured["part"] == "student")]["relative"].mean()  # fmt: skip
    assert branching.parts(measured).loc[("isotropic", "finite", "DHM", "B2 ← B0"), "student"] == round(mean, 3)
    table = branching.curvatures(measured)
    assert (table["autodiff", 0.25] == table["autodiff", 1.0]).all()  # derivatives know no size
    found, errors = branching.residuals({"net": nets["dhm", 0]}, images.spread(2), [0.5, 1.0])
    root, student, teacher = branching.heads_after(nets["dhm", 0], "B0", "B2")
    samples = branching.augmented_representations(nets["dhm", 0], root, images.spread(2), generator(0))
    h, noise = samples.mean(dim=0), Measured.of(samples)
    expansion = eq11.expand_value(student, teacher, h, noise.factor)
    drawn, error = monte_carlo(
        lambda xi: eq11.mimicking(student, teacher, h, xi).sum(-1), noise, 2, 1.0, branching.PAIRS, generator(1)
    )
    assert found["net"]["printed"][0][1] == pytest.approx(float((drawn - eq11.printed(expansion, 1.0).sum(-1)).norm()))
    assert found["net"]["full"][0][1] == pytest.approx(float((drawn - eq11.full(expansion, 1.0).sum(-1)).norm()))
    assert errors["net"][1] == pytest.approx(float(error.norm()))


def test_kinks_add_what_the_almost_everywhere_curvature_misses() -> None:
    """phi2 rises along |h|: its a.e. second derivative ignores the kink, smoothing does not, and full order is lost."""

    def teacher(h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h.relu(), -h.relu()], dim=-1).softmax(dim=-1)

    def student(h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h, -h], dim=-1).softmax(dim=-1)

    h = torch.zeros(1, 1, dtype=torch.float64)
    expansion = eq11.expand_value(student, teacher, h, torch.ones(1, 1, 1, dtype=torch.float64))
    assert expansion[3].abs().sum() < 1e-12
    residuals = [
        float((monte_carlo(lambda xi: eq11.mimicking(student, teacher, h, xi).sum(-1), Isotropic((1,)), 1, s, 4000,
                           generator(13))[0] - eq11.full(expansion, s).sum(-1)).abs())
        for s in SIGMAS
    ]  # fmt: skip
    assert eq11.slope(SIGMAS, residuals) < 2.5


def test_bad_input_is_told() -> None:
    net = dhm.create_model("cifar_resnet", 5, depth=8)
    with pytest.raises(dhm.InputError, match="B7"):
        branching.heads_after(net, "B0", "B7")


def test_images_to_perturb_are_of_all_classes(folder: Path) -> None:
    """A folder's images are sorted by class; a set that is streamed and a single image are told before any training."""
    config = small_config(dataset=str(folder), image_size=8, augment="crop", classes=None, train_per_class=None)
    assert branching.perturbed_images(config, 3).labels.tolist() == [0, 1, 2]
    assert len(branching.perturbed_images(config, 100)) == 6
    with pytest.raises(dhm.InputError, match="at least 2, not 1"):
        branching.perturbed_images(config, 1)
    with pytest.raises(dhm.InputError, match="images in memory"):
        branching.perturbed_images(config.replace(augment="scale"), 3)
