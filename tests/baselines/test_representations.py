"""Each number against a plain computation with NumPy, or against what must hold for any data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from fedbench_baselines import representations as numbers
from torch import Tensor
from torch.nn import functional as F

from fedbench import PerClass


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def rotation(rng: torch.Generator, d: int) -> Tensor:
    return torch.linalg.qr(normal(rng, d, d))[0]


def per_class(labels: list[int], values: Tensor) -> PerClass:
    return PerClass(torch.tensor(labels), values, torch.ones(len(labels)).long())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def test_consistency_by_hand() -> None:
    features = torch.tensor([[2.0, 0], [0, 2], [0, 3], [5, 5]])
    anchors = per_class([0, 0, 1, 3], torch.tensor([[4.0, 0], [0, 1], [-1, 0], [1, 1]]))
    found = numbers.consistency(features, torch.tensor([0, 0, 1, 2]), anchors)
    assert found.labels.tolist() == [0, 1]  # class 2 has no anchor, class 3 no examples
    assert found.values.tolist() == pytest.approx([1, 0], abs=1e-6)  # lengths do not count


def test_spread_by_hand() -> None:
    values = torch.tensor([1.0, 3, 0, 4, 9])
    classes = torch.tensor([0, 0, 0, 1, 2])
    groups = torch.tensor([5, 5, 7, 5, 5])
    assert numbers.spread(values, classes, groups) == 1  # class 0: 2 and 0 in its two groups
    several = numbers.spread(values[[0, 2, 3, 4]], torch.tensor([0, 0, 1, 1]), groups[[0, 2, 0, 2]])
    assert several == (0.5 + 2.5) / 2
    assert numbers.spread(values, torch.arange(5), groups) is None


def test_separation_and_similarity_against_pairs(rng: torch.Generator) -> None:
    anchors = per_class([0, 0, 1, 2], normal(rng, 4, 3))
    rows = anchors.values.numpy()
    pairs = [(i, j) for i, j in itertools.combinations(range(4), 2) if {i, j} != {0, 1}]
    cosines = [cosine(rows[i], rows[j]) for i, j in pairs]
    assert numbers.separation(anchors) == pytest.approx((np.mean(cosines), max(cosines)))
    assert numbers.separation(per_class([1, 1], normal(rng, 2, 3))) is None
    labels, found = numbers.similarity(anchors)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = [unit[:2].mean(0), unit[2], unit[3]]
    assert labels.tolist() == [0, 1, 2]
    expected = [[cosine(a, b) for b in means] for a in means]
    np.testing.assert_allclose(found.numpy(), expected)


def test_uniformity_against_pairs(rng: torch.Generator) -> None:
    features = normal(rng, 6, 3)
    unit = (features / features.norm(dim=1, keepdim=True)).numpy()
    terms = [math.exp(-2 * ((a - b) ** 2).sum()) for a, b in itertools.combinations(unit, 2)]
    assert numbers.uniformity(features) == pytest.approx(math.log(np.mean(terms)))
    assert numbers.uniformity(torch.ones(4, 3)) == 0
    opposite = torch.tensor([[3.0, 0], [-1, 0]])
    assert numbers.uniformity(opposite) == pytest.approx(-2 * 4)
    assert numbers.uniformity(features[:1]) is None


def test_effective_rank_of_known_spectra(rng: torch.Generator) -> None:
    q = rotation(rng, 5)
    assert numbers.effective_rank(3 * q) == pytest.approx(5)  # isotropic
    assert numbers.effective_rank(torch.outer(q[0], q[1])) == pytest.approx(1)
    values = torch.tensor([4.0, 2, 2, 0, 0], dtype=torch.float64)
    spectrum = q @ values.diag() @ rotation(rng, 5)
    assert numbers.effective_rank(spectrum) == pytest.approx(2**1.5)  # p = 1/2, 1/4, 1/4
    assert numbers.effective_rank(torch.zeros(3, 2)) == 0


def test_cka_against_its_formula_and_its_invariances(rng: torch.Generator) -> None:
    x, y = normal(rng, 20, 4), normal(rng, 20, 7)
    xc, yc = (a.numpy() - a.numpy().mean(0) for a in (x, y))
    across, within = np.linalg.norm(yc.T @ xc) ** 2, [np.linalg.norm(a.T @ a) for a in (xc, yc)]
    assert numbers.linear_cka(x, y) == pytest.approx(across / (within[0] * within[1]))
    assert numbers.linear_cka(x, 3 * x @ rotation(rng, 4) + 1) == pytest.approx(1)
    assert numbers.linear_cka(x, torch.ones(20, 2)) == 0
    left, right = torch.zeros(4, 1), torch.zeros(4, 1)
    left[:2], right[::2] = 1, 1
    assert numbers.linear_cka(left, right) == pytest.approx(0, abs=1e-7)  # uncorrelated


def test_the_mean_cka_of_all_pairs_comes_from_a_sum(rng: torch.Generator) -> None:
    models = [normal(rng, 10, 3) for _ in range(4)]
    pairs = [numbers.linear_cka(a, b) for a, b in itertools.combinations(models, 2)]
    grams = torch.stack([numbers.unit_gram(model) for model in models])
    assert numbers.mean_cka(grams) == pytest.approx(np.mean(pairs))
    assert numbers.mean_cka(grams[:1]) is None


def test_relative_change_by_hand() -> None:
    before = per_class([0, 0, 1, 2, 3], torch.tensor([[2.0, 0], [4, 0], [0, 2], [1, 1], [0, 0]]))
    after = per_class([0, 1, 3, 4], torch.tensor([[3.0, 0], [0, 5], [1, 1], [1, 1]]))
    assert numbers.relative_change(before, after) == (0 + 3 / 2) / 2  # 3 starts at 0: left out
    assert numbers.relative_change(before, per_class([7], torch.ones(1, 2))) is None


def test_classifier_gradients_are_those_of_autograd(rng: torch.Generator) -> None:
    rows = PerClass(torch.tensor([2, 0, 2]), normal(rng, 3, 4), torch.ones(3).long())
    weight, bias = normal(rng, 3, 4).requires_grad_(), normal(rng, 3).requires_grad_()
    found = numbers.classifier_gradients(rows, weight.detach(), bias.detach())
    assert found.labels.tolist() == [0, 2]
    for label, row in zip((0, 2), found.values, strict=True):
        own = rows.labels == label
        loss = F.cross_entropy(F.linear(rows.values[own], weight, bias), rows.labels[own])
        w, b = torch.autograd.grad(loss, (weight, bias))
        assert torch.allclose(row, torch.cat([w, b[:, None]], dim=1).flatten())


def test_gradients_agree_for_anchors_that_are_the_samples(rng: torch.Generator) -> None:
    features, labels = normal(rng, 6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    layer = normal(rng, 3, 4), normal(rng, 3)
    same = PerClass(labels, features, torch.ones_like(labels))
    found = numbers.gradient_agreement(features, labels, same, *layer)
    assert found.values.tolist() == pytest.approx([1, 1, 1])
    some = numbers.gradient_agreement(
        features, labels, per_class([1, 9], normal(rng, 2, 4)), *layer
    )
    assert some.labels.tolist() == [1]
    assert abs(float(some.values)) < 1
    none = numbers.gradient_agreement(features, labels, per_class([9], normal(rng, 1, 4)), *layer)
    assert len(none) == 0


def test_nearest_anchors_by_hand() -> None:
    features = torch.tensor([[1.0, 0], [9, 1], [0, 1], [0, 1]])
    anchors = per_class([0, 1, 0], torch.tensor([[1.0, 0.1], [0, 0.1], [-1, 0]]))
    found = numbers.nearest_is_own(features, torch.tensor([0, 1, 1, 5]), anchors)
    assert found.tolist() == [True, False, True, False]


def test_the_plane_has_the_largest_variances_and_settled_signs(rng: torch.Generator) -> None:
    points = normal(rng, 30, 4) * torch.tensor([1.0, 5, 0.1, 3]) + 2
    mean, axes = numbers.plane(points)
    values, vectors = np.linalg.eigh(np.cov(points.numpy().T))
    for axis, expected in zip(axes.numpy(), vectors.T[::-1], strict=False):
        assert abs(axis @ expected) == pytest.approx(1)
        assert axis[np.abs(axis).argmax()] > 0
    projected = ((points - mean) @ axes.T).var(dim=0)
    assert projected.tolist() == pytest.approx(values[::-1][:2])
    flipped = numbers.plane(-points)[1]
    assert torch.allclose(flipped, axes)
    assert numbers.plane(points[:1])[1][1].tolist() == [0] * 4
