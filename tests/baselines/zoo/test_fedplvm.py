"""FedPLVM: both losses by plain loops, cosines below zero, and the clustering of features."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fedplvm import correction_loss, local_clusters, sparsity_loss
from fedbench_baselines.fpl import finch
from hypothesis import given
from hypothesis import strategies as st

from fedbench import PerClass


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rows(labels: list[int], values: torch.Tensor) -> PerClass:
    return PerClass(torch.tensor(labels).long(), values, torch.ones(len(labels)).long())


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


KNOWN = st.lists(st.integers(0, 4), min_size=1, max_size=8)


@given(KNOWN, st.integers(1, 6), st.sampled_from([0.25, 1.0, 2.0]), st.integers(0, 1000))
def test_the_sparsity_loss_of_a_loop(known, batch, alpha, seed):
    """Features and prototypes of any sign, so that many cosines are at the lower bound."""
    prototypes = rows(known, draw(len(known), 3, seed=seed))
    features = draw(batch, 3, seed=seed + 1).requires_grad_()
    labels = torch.randint(5, (batch,), generator=torch.Generator().manual_seed(seed))
    expected = 0.0
    for z, y in zip(features.tolist(), labels.tolist(), strict=True):
        terms = [
            math.exp(max(cosine(z, p), 1e-6) ** alpha / 0.07) for p in prototypes.values.tolist()
        ]
        own = [t for t, c in zip(terms, known, strict=True) if c == y]
        expected -= math.log(sum(own) / sum(terms)) if own else 0.0
    loss = sparsity_loss(features, labels, prototypes, 0.07, alpha)
    assert float(loss.detach()) == pytest.approx(expected / batch, abs=1e-9)
    loss.backward()
    assert torch.isfinite(features.grad).all()


@given(KNOWN, st.integers(1, 6), st.integers(0, 1000))
def test_the_correction_loss_of_a_loop(known, batch, seed):
    prototypes = rows(known, draw(len(known), 3, seed=seed))
    features = draw(batch, 3, seed=seed + 1).requires_grad_()
    labels = torch.randint(5, (batch,), generator=torch.Generator().manual_seed(seed))
    expected = 0.0
    for z, y in zip(features.tolist(), labels.tolist(), strict=True):
        own = [p for p, c in zip(prototypes.values.tolist(), known, strict=True) if c == y]
        if own:
            mean = [sum(column) / len(own) for column in zip(*own, strict=True)]
            expected += 2 * (cosine(z, mean) - 1) ** 2
    loss = correction_loss(features, labels, prototypes)
    assert float(loss.detach()) == pytest.approx(expected / batch, abs=1e-9)
    loss.backward()
    assert torch.isfinite(features.grad).all()


def test_both_by_hand():
    """Cosines 1 and 0.6 to class 0, 0 (that is, 1e-6) to class 1; alpha 1, T 0.5."""
    prototypes = rows([0, 0, 1], torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
    z, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    near = math.exp(2) + math.exp(1.2)
    expected = math.log((near + math.exp(2e-6)) / near)
    assert float(sparsity_loss(z, y, prototypes, 0.5, 1.0)) == pytest.approx(expected, rel=1e-5)
    # The mean of class 0 is (1.3, 0.4).
    expected = 2 * (1.3 / math.hypot(1.3, 0.4) - 1) ** 2
    assert float(correction_loss(z, y, prototypes)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("label", [0, 1])
def test_opposite_prototypes_and_unknown_classes_are_finite(label):
    """A cosine of -1 to the only prototype; class 1 has none."""
    features = torch.tensor([[1.0, 0.0]], requires_grad=True)
    prototypes, labels = rows([0], torch.tensor([[-1.0, 0.0]])), torch.tensor([label])
    loss = sparsity_loss(features, labels, prototypes, 0.07, 0.25)
    corrected = correction_loss(features, labels, prototypes)
    (loss + corrected).backward()
    assert float(loss.detach()) == 0
    assert float(corrected.detach()) == (8.0 if label == 0 else 0.0)
    assert torch.isfinite(features.grad).all()


def test_zero_features_are_finite():
    features = torch.zeros(1, 2, requires_grad=True)
    prototypes = rows([0, 1], torch.eye(2))
    loss = sparsity_loss(features, torch.tensor([0]), prototypes, 0.07, 0.25)
    (loss + correction_loss(features, torch.tensor([0]), prototypes)).backward()
    assert torch.isfinite(features.grad).all()


def test_a_clients_prototypes_are_the_means_of_its_clusters_of_features():
    """Class 0 points in two directions, two features each; class 2 has a single feature."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.1], [0.1, 3.0], [5.0, 5.0]])
    labels = torch.tensor([0, 0, 0, 0, 2])
    found = local_clusters(features, labels)
    assert found.labels.tolist() == [0, 0, 2]
    assert found.counts.tolist() == [2, 2, 1]
    torch.testing.assert_close(found.values, torch.tensor([[2.0, 0.05], [0.05, 2.0], [5.0, 5.0]]))


def test_a_spread_class_gets_more_prototypes_than_a_narrow_one():
    spread = torch.eye(8).repeat(4, 1) + 0.01 * draw(32, 8).float()
    narrow = torch.ones(3, 8) + 0.01 * draw(3, 8, seed=1).float()
    found = local_clusters(torch.cat([spread, narrow]), torch.tensor([0] * 32 + [1] * 3))
    sizes = found.labels.bincount().tolist()
    assert sizes[0] == len(finch(spread).unique()) > sizes[1] == 1
