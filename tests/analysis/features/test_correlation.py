"""Figure 4's readings, their nulls, matching and CKA."""

import numpy as np
import pytest
import torch

import dhm
from dhm import BranchSpec
from dhm.analysis.features import correlation as corr


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def kernels(rng: np.random.Generator, out: int = 24, channels: int = 16) -> np.ndarray:
    return corr.max_kernel(torch.from_numpy(rng.normal(size=(out, channels, 3, 3))))


def test_max_kernel_is_normalised_over_channels_and_filters(rng: np.random.Generator) -> None:
    weight = torch.from_numpy(rng.normal(size=(6, 5, 3, 3)))
    by_hand = np.array([[float(weight[o, i].max()) for i in range(5)] for o in range(6)])
    np.testing.assert_allclose(corr.max_kernel(weight), (by_hand - by_hand.mean()) / by_hand.std())


def test_correlations_equal_numpy(rng: np.random.Generator) -> None:
    a, b = kernels(rng), kernels(rng)
    np.testing.assert_allclose(corr.between_filters(a, b), np.corrcoef(a, b)[:24, 24:], atol=1e-12)
    np.testing.assert_allclose(corr.between_channels(a, b), np.corrcoef(a.T, b.T)[:16, 16:], atol=1e-12)
    assert corr.entry_by_entry(a, b).shape == a.shape
    assert corr.entry_by_entry(a, b).mean() == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_null_of_independent_kernels_is_flat(rng: np.random.Generator) -> None:
    """Mean 0, deviation 1 / sqrt(n - 1) over n input channels, in every place of the map, and p uniform."""
    maps = []
    a, b = kernels(rng), kernels(rng)
    for _ in range(2000):
        maps.append(corr.between_filters(a, b[rng.permutation(24)][:, rng.permutation(16)]))
    maps = np.array(maps)
    assert abs(maps.mean(axis=0)).max() < 5 / np.sqrt(15 * 2000)
    np.testing.assert_allclose(maps.std(axis=0), 1 / np.sqrt(15), rtol=0.12)
    for name, reading in corr.READINGS.items():
        tests = [
            corr.permutation_null(reading, corr.root_mean_square, kernels(rng), kernels(rng), 19, rng).p
            for _ in range(150)
        ]
        assert np.mean(tests) == pytest.approx(0.525, abs=0.1), name
        assert np.mean(np.array(tests) <= 0.1) == pytest.approx(0.1, abs=0.08), name


def test_null_is_left_where_the_orders_correspond(rng: np.random.Generator) -> None:
    a = kernels(rng)
    b = a + 0.5 * rng.normal(size=a.shape)
    for reading in corr.READINGS.values():
        null = corr.permutation_null(reading, corr.root_mean_square, a, b, 99, rng)
        assert null.p == 0.01
        assert null.z > 3
    assert np.diagonal(corr.between_filters(a, b)).mean() > 0.8


def test_matching_recovers_planted_permutations(rng: np.random.Generator) -> None:
    a = kernels(rng)
    rows, columns = rng.permutation(24), rng.permutation(16)
    correlation, *found = corr.match(a, a[rows][:, columns])
    np.testing.assert_array_equal(rows[found[0]], np.arange(24))
    np.testing.assert_array_equal(columns[found[1]], np.arange(16))
    assert correlation == pytest.approx(1)
    noisy = (a + 0.2 * rng.normal(size=a.shape))[rows][:, columns]
    np.testing.assert_array_equal(rows[corr.match(a, noisy)[1]], np.arange(24))
    null = corr.matching_null(a, noisy, 19, rng)
    assert null.p == 0.05
    assert null.z > 5


def test_matching_finds_structure_in_noise_and_its_null_says_so(rng: np.random.Generator) -> None:
    nulls = [corr.matching_null(kernels(rng), kernels(rng), 19, rng) for _ in range(30)]
    assert np.mean([null.observed for null in nulls]) > 0.3
    assert np.mean([null.p for null in nulls]) == pytest.approx(0.525, abs=0.2)


def test_cka(rng: np.random.Generator) -> None:
    x = rng.normal(size=(512, 64)) @ rng.normal(size=(64, 64))
    rotation = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    assert corr.debiased_cka(x, x) == pytest.approx(1)
    assert corr.debiased_cka(x, 3 * x @ rotation + 1) == pytest.approx(1)
    independent = [
        corr.debiased_cka(rng.normal(size=(512, 256)), rng.normal(size=(512, 256))) for _ in range(10)
    ]  # the plain estimator gives 0.33 here
    assert np.abs(independent).max() < 0.02
    with pytest.raises(dhm.InputError, match="5 and 6"):
        corr.debiased_cka(x[:5], x[:6])


def test_unbiased_hsic_is_unbiased(rng: np.random.Generator) -> None:
    """Its mean over samples is the squared norm of the cross-covariance, the population's linear HSIC."""
    mixing = rng.normal(size=(3, 2))
    values = []
    for _ in range(4000):
        x = rng.normal(size=(8, 3))
        values.append(corr._hsic(corr._gram(x), corr._gram(x @ mixing)))
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values) - (mixing**2).sum()) < 4 * error


def test_pairs_of_a_residual_network() -> None:
    net = dhm.create_model("resnet32", 10)
    pairs = corr.paired_layers(net)
    assert list(pairs) == [f"conv3_{i}" for i in range(1, 6)] + [f"conv4_{i}" for i in range(1, 4)]
    a, b = pairs["conv4_2"]
    np.testing.assert_array_equal(a, corr.max_kernel(net.backbone.layer3[1].conv2.weight))
    np.testing.assert_array_equal(b, corr.max_kernel(net.branches["B2"].layer3[1].conv2.weight))


def test_pairs_of_other_networks() -> None:
    dense = corr.paired_layers(dhm.create_model("densenet", 10, depth=10, growth=4))
    assert {name: a.shape for name, (a, _) in dense.items()} == {
        "conv3_1": (4, 24), "conv3_2": (4, 28), "conv4_1": (4, 32),
    }  # fmt: skip
    without = dhm.create_model("cifar_resnet", 10, [BranchSpec("B1", 1)], depth=8)
    with pytest.raises(dhm.InputError, match="no classifier 'B2'; it has B0, B1"):
        corr.paired_layers(without)
    bare = dhm.create_model("cifar_resnet", 10, [BranchSpec("B2", 1)], depth=8)
    with pytest.raises(dhm.InputError, match="no 3x3 convolutions"):
        corr.paired_layers(bare)


def test_descriptors_are_what_the_classifiers_see() -> None:
    torch.manual_seed(0)
    net = dhm.create_model("wrn", 10, depth=10, width=1)
    images = torch.randn(6, 3, 8, 8)
    found = corr.descriptors(net, images)
    assert net.training
    logits = net.eval().all_logits(images)
    for name, classifier in {"B0": net.backbone.fc, "B1": net.branches["B1"].fc, "B2": net.branches["B2"].fc}.items():
        torch.testing.assert_close(classifier(torch.from_numpy(found[name])), logits[name])
