"""FedACG: the momentum is the last movement of the global weights."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.fedacg import server_momentum
from hypothesis import given
from hypothesis import strategies as st


def test_by_hand():
    """w_t = 1, m = 2, factor 0.5: clients start at 2 and end at 5 on average."""
    m, mean, ahead = ({"w": torch.tensor([x])} for x in (2.0, 5.0, 2.0))
    assert server_momentum(m, mean, ahead, 0.5)["w"].tolist() == [4.0]
    assert m["w"].tolist() == [2.0]


@given(st.integers(0, 1000), st.floats(0, 0.99))
def test_it_is_the_movement_of_the_weights_whatever_the_factor(seed, factor):
    generator = torch.Generator().manual_seed(seed)
    w, m, trained = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    ahead = w + factor * m
    found = server_momentum({"w": m}, {"w": trained}, {"w": ahead}, factor)["w"]
    torch.testing.assert_close(found, trained - w)


def test_clients_that_stay_let_the_momentum_fade():
    m, ahead = {"w": torch.tensor([1.0, -3.0])}, {"w": torch.tensor([7.0, 7.0])}
    found = server_momentum(m, ahead, ahead, 0.85)["w"]
    assert found.tolist() == pytest.approx([0.85, -2.55])
    assert found.dtype == torch.float32
