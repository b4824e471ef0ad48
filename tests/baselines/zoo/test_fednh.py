"""FedNH: directions, smoothing by loops and by hand, and the cosine classifier."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fednh import (
    class_directions,
    cosine_logits,
    initial_prototypes,
    smooth,
)
from hypothesis import given
from hypothesis import strategies as st

from fedbench import PerClass


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(row: list[float]) -> list[float]:
    return [x / math.hypot(*row) for x in row]


@pytest.mark.parametrize(("classes", "d"), [(3, 8), (4, 4), (8, 3)])
def test_rows_or_else_columns_are_orthonormal_at_the_start(classes, d):
    w = initial_prototypes(classes, d, torch.Generator().manual_seed(0))
    products = w @ w.T if classes <= d else w.T @ w
    torch.testing.assert_close(products, torch.eye(min(classes, d)), atol=1e-5, rtol=0)
    assert torch.equal(w, initial_prototypes(classes, d, torch.Generator().manual_seed(0)))


@given(st.integers(1, 12), st.integers(0, 1000))
def test_directions_of_a_loop(n, seed):
    features = draw(n, 3, seed=seed)
    labels = torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed))
    found = class_directions(features, labels)
    assert found.labels.tolist() == sorted(set(labels.tolist()))
    for y, row, count in zip(*vars(found).values(), strict=True):
        mine = [unit(z) for z, c in zip(features.tolist(), labels, strict=True) if c == y]
        mean = [sum(column) / len(mine) for column in zip(*mine, strict=True)]
        assert row.tolist() == pytest.approx(unit(mean))
        assert int(count) == len(mine)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=8),
    st.floats(0.1, 1),
    st.integers(0, 1000),
)
def test_smoothing_of_a_loop(uploads, r, seed):
    """Class 4 is never uploaded; a row with count 0 is as good as none."""
    old = torch.nn.functional.normalize(draw(5, 3, seed=seed), dim=1)
    labels, counts = (torch.tensor(part) for part in zip(*uploads, strict=True))
    values = torch.nn.functional.normalize(draw(len(uploads), 3, seed=seed + 1), dim=1)
    expected = old.tolist()
    for c in range(5):
        mine = [
            (n, row) for (y, n), row in zip(uploads, values.tolist(), strict=True) if y == c and n
        ]
        if mine:
            total = sum(n for n, _ in mine)
            mean = unit([sum(n * row[j] for n, row in mine) / total for j in range(3)])
            expected[c] = unit(
                [r * a + (1 - r) * b for a, b in zip(expected[c], mean, strict=True)]
            )
    before = old.clone()
    found = smooth(old, PerClass(labels, values, counts), r)
    torch.testing.assert_close(found, old.new_tensor(expected))
    assert torch.equal(old, before)


def test_smoothing_by_hand():
    """Counts 3 and 1 of orthogonal directions: (3, 1) / sqrt(10), halfway from (1, 0)."""
    uploads = PerClass(torch.tensor([1, 1]), torch.eye(2), torch.tensor([3, 1]))
    found = smooth(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), uploads, 0.5)
    assert found[0].tolist() == [0, 1], "nobody holds class 0"
    assert found[1].tolist() == pytest.approx(unit([1 + 3 / 10**0.5, 1 / 10**0.5]))
    assert found.dtype == torch.float32


def test_directions_that_cancel_leave_a_row_where_it_is():
    opposed = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    uploads = PerClass(torch.tensor([0, 0]), opposed, torch.tensor([2, 2]))
    assert smooth(torch.tensor([[0.0, 1.0]]), uploads, 0.9).tolist() == [[0.0, 1.0]]
    assert class_directions(opposed, torch.zeros(2).long()).values.tolist() == [[0.0, 0.0]]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_logits_are_scaled_cosines(batch, classes, seed):
    features, w = draw(batch, 3, seed=seed), draw(classes, 3, seed=seed + 1)
    logits = cosine_logits(features, w, 20.0)
    for i, z in enumerate(features.tolist()):
        for c, row in enumerate(w.tolist()):
            cosine = sum(a * b for a, b in zip(unit(z), unit(row), strict=True))
            assert float(logits[i, c]) == pytest.approx(20 * cosine)


def test_zero_features_have_zero_logits_and_a_finite_gradient():
    features = torch.zeros(1, 2, requires_grad=True)
    logits = cosine_logits(features, torch.eye(2), 20.0)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0])).backward()
    assert logits.tolist() == [[0, 0]]
    assert torch.isfinite(features.grad).all()
