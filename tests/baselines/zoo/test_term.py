"""TERM: tilted weights of the clients."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.term import tilted_weights
from hypothesis import given
from hypothesis import strategies as st

LOSSES = torch.tensor([0.3, 2.0, 0.9], dtype=torch.float64)
SHARES = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


@given(st.floats(-20, 20))
def test_weights_against_the_formula(t: float) -> None:
    both = list(zip(SHARES.tolist(), LOSSES.tolist(), strict=True))
    parts = [p * math.exp(t * f) for p, f in both]
    expected = torch.tensor([part / sum(parts) for part in parts], dtype=torch.float64)
    torch.testing.assert_close(tilted_weights(LOSSES, SHARES, t), expected)


def test_weights_by_hand() -> None:
    weights = tilted_weights(torch.tensor([0.0, math.log(2)]), torch.tensor([0.5, 0.5]), 2.0)
    torch.testing.assert_close(weights, torch.tensor([0.2, 0.8]))


def test_t_0_is_fedavg() -> None:
    torch.testing.assert_close(tilted_weights(LOSSES, SHARES, 0.0), SHARES)
    counts = torch.tensor([50, 20, 30])
    torch.testing.assert_close(tilted_weights(LOSSES, counts, 0.0), SHARES)


def test_equal_losses_leave_the_shares() -> None:
    torch.testing.assert_close(tilted_weights(torch.ones(3).double(), SHARES, 9.0), SHARES)


@pytest.mark.parametrize(("t", "client"), [(1e6, 1), (-1e6, 0)])
def test_a_large_tilt_chooses_one_client_without_overflow(t: float, client: int) -> None:
    expected = torch.zeros(3, dtype=torch.float64)
    expected[client] = 1
    assert tilted_weights(LOSSES, SHARES, t).equal(expected)


def test_a_client_without_examples_has_no_weight() -> None:
    weights = tilted_weights(torch.tensor([1.0, 50.0]), torch.tensor([1.0, 0.0]), 10.0)
    assert weights.tolist() == [1.0, 0.0]
    assert weights.dtype == torch.float32


def test_one_client() -> None:
    assert tilted_weights(torch.tensor([3.0]), torch.tensor([7]), 2.0).tolist() == [1.0]
