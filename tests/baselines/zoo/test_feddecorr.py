"""FedDecorr's loss as released: a plain loop, correlated features, and degenerate batches."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.feddecorr import decorrelation_loss
from hypothesis import given
from hypothesis import strategies as st


def draw(batch: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, d, generator=generator, dtype=torch.float64)


def plain(features: torch.Tensor) -> float:
    size, d = features.shape
    columns = features.T.tolist()
    x = []
    for column in columns:
        mean = sum(column) / size
        variance = sum((v - mean) ** 2 for v in column) / (size - 1)
        x.append([(v - mean) / (variance + 1e-8) ** 0.5 for v in column])
    off = [
        sum(a * b for a, b in zip(x[i], x[j], strict=True)) ** 2
        for i in range(d)
        for j in range(d)
        if i != j
    ]
    return sum(off) / len(off) / size


@given(st.integers(2, 8), st.integers(2, 5), st.integers(0, 1000))
def test_the_loss_of_a_loop(batch, d, seed):
    features = draw(batch, d, seed)
    assert float(decorrelation_loss(features)) == pytest.approx(plain(features))


@pytest.mark.parametrize("batch", [4, 16])
def test_copies_of_one_feature_have_the_largest_loss_and_it_grows_with_the_batch(batch):
    """Correlation 1 everywhere: every entry of x^T x is B - 1."""
    features = draw(batch, 1, 0).expand(batch, 3)
    expected = (batch - 1) ** 2 / batch
    assert float(decorrelation_loss(features)) == pytest.approx(expected, rel=1e-6)


def test_uncorrelated_features_have_no_loss():
    features = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(decorrelation_loss(features)) == pytest.approx(0, abs=1e-12)


def test_scale_and_shift_of_a_feature_do_not_matter():
    features = draw(9, 4, 1)
    moved = features * torch.tensor([3.0, 0.5, -2.0, 1.0]) + torch.tensor([1.0, 0.0, -7.0, 4.0])
    torch.testing.assert_close(decorrelation_loss(moved), decorrelation_loss(features))


@pytest.mark.parametrize(
    "features", [torch.randn(1, 4), torch.full((5, 3), 0.1), torch.zeros(5, 3), torch.randn(5, 1)]
)
def test_one_sample_constant_features_or_one_feature_add_nothing(features):
    z = features.clone().requires_grad_()
    loss = decorrelation_loss(z)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(z.grad).all()


def test_one_constant_feature_among_others():
    features = draw(6, 3, 2)
    features[:, 1] = 2.0
    z = features.clone().requires_grad_()
    loss = decorrelation_loss(z)
    loss.backward()
    # One of three pairs is left.
    assert float(loss.detach()) == pytest.approx(plain(features[:, [0, 2]]) / 3)
    assert torch.isfinite(z.grad).all()


def test_the_gradient():
    assert torch.autograd.gradcheck(decorrelation_loss, draw(5, 3, 3).requires_grad_())
