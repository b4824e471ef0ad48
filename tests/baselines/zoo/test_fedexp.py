"""FedExP's step: by hand, by a loop, its bounds, and the cases where it is 1."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.fedexp import step_size
from hypothesis import given
from hypothesis import strategies as st


def test_two_orthogonal_updates_by_hand():
    """Squares 9 and 16 with shares 1/4, 3/4 are 14.25; the mean is (0.75, 3), squared 9.5625."""
    deltas = [({"w": torch.tensor([3.0, 0.0])}, 0.25), ({"w": torch.tensor([0.0, 4.0])}, 0.75)]
    assert step_size(iter(deltas), epsilon=0.0) == 1.0
    opposed = [({"w": torch.tensor([3.0])}, 0.5), ({"w": torch.tensor([-1.0])}, 0.5)]
    assert step_size(opposed, epsilon=0.25) == 5 / (2 * (1 + 0.25))


@given(st.integers(1, 8), st.integers(0, 1000), st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_step_of_a_loop(clients, seed, epsilon):
    generator = torch.Generator().manual_seed(seed)
    updates = torch.randn(clients, 5, generator=generator, dtype=torch.float64)
    shares = torch.rand(clients, generator=generator, dtype=torch.float64) + 0.1
    shares = (shares / shares.sum()).tolist()
    squares, mean = 0.0, [0.0] * 5
    for update, p in zip(updates.tolist(), shares, strict=True):
        squares += p * sum(x * x for x in update)
        mean = [m + p * x for m, x in zip(mean, update, strict=True)]
    expected = max(1.0, squares / (2 * (sum(m * m for m in mean) + epsilon)))
    split = (({"a": u[:2], "b": u[2:]}, p) for u, p in zip(updates, shares, strict=True))
    assert step_size(split, epsilon) == pytest.approx(expected)


@pytest.mark.parametrize("clients", [1, 5])
def test_equal_updates_are_not_extrapolated(clients):
    update = {"w": torch.randn(4, generator=torch.Generator().manual_seed(0))}
    assert step_size(((update, 1 / clients) for _ in range(clients)), 1e-3) == 1.0


def test_without_movement_the_step_is_one():
    assert step_size([({"w": torch.zeros(3)}, 0.5)] * 2, 1e-3) == 1.0


def test_updates_that_cancel_give_a_finite_step():
    one = {"w": torch.tensor([1.0])}
    assert step_size([(one, 0.5), ({"w": -one["w"]}, 0.5)], 1e-3) == pytest.approx(500)
    assert one["w"].tolist() == [1]
