"""CCVR: pooled statistics are those of all features, and virtual features have them."""

from __future__ import annotations

import torch
from fedbench_baselines.ccvr import pooled_statistics, virtual_features
from hypothesis import given
from hypothesis import strategies as st


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def statistics(features, labels, classes):
    """Return one client's counts (C,), means (C, d) and covariances (C, d, d), class by class."""
    d = features.shape[1]
    counts, means = torch.zeros(classes).long(), torch.zeros(classes, d).double()
    covariances = torch.zeros(classes, d, d).double()
    for c in range(classes):
        z = features[labels == c]
        counts[c] = len(z)
        if len(z):
            means[c] = z.mean(0)
        if len(z) > 1:
            covariances[c] = (z - z.mean(0)).T @ (z - z.mean(0)) / (len(z) - 1)
    return counts, means, covariances


def pooled(clients, classes):
    parts = zip(*(statistics(z, y, classes) for z, y in clients), strict=True)
    return pooled_statistics(*(torch.stack(part) for part in parts))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 1000))
def test_pooled_statistics_are_those_of_all_features_together(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    clients = [
        (draw(n, 3, seed=seed + k) + k, torch.randint(0, 4, (n,), generator=generator))
        for k, n in enumerate(sizes)
    ]
    found = pooled(clients, classes=5)  # class 4 never occurs
    features, labels = (torch.cat(part) for part in zip(*clients, strict=True))
    expected = statistics(features, labels, 5)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2])


def test_two_clients_by_hand():
    """Values 0, 2 at one client and 4 at the other: mean 2, variance 4."""
    counts = torch.tensor([[2], [1]])
    means = torch.tensor([[[1.0]], [[4.0]]])
    covariances = torch.tensor([[[[2.0]]], [[[0.0]]]])
    n, mean, covariance = pooled_statistics(counts, means, covariances)
    assert (n.tolist(), mean.tolist(), covariance.tolist()) == ([3], [[2.0]], [[[4.0]]])
    assert (n.dtype, mean.dtype, covariance.dtype) == (torch.int64, torch.float32, torch.float32)


def test_means_far_from_zero_do_not_cancel():
    clients = [(draw(5, 2, seed=k) + 1e6, torch.zeros(5).long()) for k in range(3)]
    _, _, covariance = pooled(clients, 1)
    features = torch.cat([z for z, _ in clients])
    torch.testing.assert_close(covariance[0], torch.cov(features.T), rtol=1e-6, atol=1e-6)


def test_a_class_with_one_example_has_covariance_zero():
    n, mean, covariance = pooled([(draw(1, 3), torch.tensor([1]))], 2)
    assert n.tolist() == [0, 1]
    assert torch.equal(mean[1:], draw(1, 3))
    assert (covariance == 0).all()


def test_what_a_client_without_the_class_sends_for_it_is_ignored():
    counts = torch.tensor([[4], [0], [1]])
    means = torch.tensor([[[1.0]], [[9.0]], [[1.0]]])
    covariances = torch.tensor([2.0, 7.0, 5.0]).reshape(3, 1, 1, 1)
    _, mean, covariance = pooled_statistics(counts, means, covariances)
    assert mean.item() == 1
    assert covariance.item() == 3 * 2 / 4, "one example has no covariance either"


def test_virtual_features_have_the_mean_and_the_covariance():
    root = draw(2, 3, 3, seed=1)
    covariances, means = root @ root.mT, draw(2, 3, seed=2)
    z, y = virtual_features(torch.tensor([5, 5]), means, covariances, 40_000, generator())
    assert y.tolist() == [0] * 40_000 + [1] * 40_000
    for c in range(2):
        scale = float(covariances[c].diagonal().max())
        assert (z[y == c].mean(0) - means[c]).abs().max() < 4 * (scale / 40_000) ** 0.5
        assert (torch.cov(z[y == c].T) - covariances[c]).abs().max() < 0.05 * scale


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_covariance_without_full_rank_is_sampled_in_its_range():
    """Three examples in ten dimensions, in float32: the rank is two."""
    points = draw(3, 10, seed=3).float()
    mean, covariance = points.mean(0), torch.cov(points.T)
    z, _ = virtual_features(torch.tensor([3]), mean[None], covariance[None], 500, generator())
    assert torch.isfinite(z).all()
    assert int(torch.linalg.matrix_rank(z - mean, rtol=1e-3)) == 2
    basis = torch.linalg.qr((points[1:] - points[0]).T).Q
    inside = (z - mean) @ basis @ basis.T
    torch.testing.assert_close(inside, z - mean, rtol=1e-3, atol=1e-4)


def test_covariance_zero_repeats_the_mean_and_absent_classes_are_left_out():
    counts, means = torch.tensor([0, 1, 7]), draw(3, 2, seed=4)
    covariances = torch.stack([torch.zeros(2, 2), torch.zeros(2, 2), torch.eye(2)]).double()
    z, y = virtual_features(counts, means, covariances, 2, generator())
    assert y.tolist() == [1, 1, 2, 2]
    assert torch.equal(z[:2], means[1].expand(2, 2))


def test_draws_are_seeded_and_do_not_depend_on_other_classes():
    means, covariances = torch.zeros(2, 2), torch.eye(2).repeat(2, 1, 1)
    both, _ = virtual_features(torch.tensor([1, 1]), means, covariances, 3, generator(1))
    second, _ = virtual_features(torch.tensor([0, 1]), means, covariances, 3, generator(1))
    other, _ = virtual_features(torch.tensor([0, 1]), means, covariances, 3, generator(2))
    assert torch.equal(both[3:], second)
    assert not torch.equal(second, other)
    assert both.dtype == torch.float32


def test_nobody_holds_any_class():
    z, y = virtual_features(
        torch.zeros(2).long(), torch.zeros(2, 3), torch.zeros(2, 3, 3), 4, generator()
    )
    assert z.shape == (0, 3)
    assert len(y) == 0
