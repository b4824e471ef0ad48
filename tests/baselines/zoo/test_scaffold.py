"""SCAFFOLD's control variates: option II, its equal under plain SGD, and the server's mean."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.scaffold import control_variate, server_variate
from hypothesis import given
from hypothesis import strategies as st


def test_a_client_by_hand():
    """Two steps of 0.5: c_k - c + (w_t - y) / 1."""
    c_k, c = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.5, 2.0])}
    w, y = {"w": torch.tensor([3.0, 3.0])}, {"w": torch.tensor([2.0, 5.0])}
    assert control_variate(c_k, c, w, y, steps=2, lr=0.5)["w"].tolist() == [1.5, -4.0]


@given(st.integers(1, 9), st.sampled_from([0.5, 0.1, 1e-3]), st.integers(0, 1000))
def test_it_is_the_mean_of_the_raw_gradients_under_plain_sgd(steps, lr, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.randn(3, generator=generator, dtype=torch.float64)

    w, c_k, c = draw(), draw(), draw()
    y, gradients = w.clone(), []
    for _ in range(steps):
        target = draw()
        gradients.append(y - target)  # of 1/2 |y - target|^2
        y = y - lr * (gradients[-1] - c_k + c)
    found = control_variate({"w": c_k}, {"w": c}, {"w": w}, {"w": y}, steps, lr)["w"]
    torch.testing.assert_close(found, torch.stack(gradients).mean(0), rtol=1e-9, atol=1e-9)


def test_with_momentum_the_formula_is_too_large_by_one_over_one_minus_rho():
    """The reason why a plugin takes the mean of the raw gradients instead."""
    zero, one = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    y, v, rho, steps = torch.ones(1), torch.zeros(1), 0.9, 2000
    for _ in range(steps):  # the raw gradient is 1 at every step
        v = rho * v + 1
        y = y - 0.1 * v
    found = control_variate(zero, zero, one, {"w": y}, steps, lr=0.1)["w"]
    assert float(found) == pytest.approx(1 / (1 - rho), rel=0.01)


def test_the_server_divides_by_all_clients_not_by_the_cohort():
    deltas = ({"w": torch.tensor([x, 2 * x])} for x in (1.0, 4.0))
    found = server_variate({"w": torch.tensor([1.0, 1.0])}, deltas, num_clients=10)
    torch.testing.assert_close(found["w"], torch.tensor([1.5, 2.0]))


def test_with_all_clients_the_servers_variate_stays_the_mean_of_theirs():
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 6, 4, generator=generator)
    deltas = [{"w": new - old} for old, new in zip(before, after, strict=True)]
    found = server_variate({"w": before.mean(0)}, deltas, num_clients=6)["w"]
    torch.testing.assert_close(found, after.mean(0))


def test_nobody_changes_nothing():
    c = {"w": torch.tensor([0.1, 0.7])}
    assert torch.equal(server_variate(c, [], 5)["w"], c["w"])


def test_types_are_kept_and_arguments_are_left_alone():
    c = {"w": torch.ones(2)}
    found = server_variate(c, [c], 1)
    assert (found["w"].dtype, c["w"].tolist()) == (torch.float32, [1, 1])
    assert control_variate(c, c, c, c, 1, 0.1)["w"].dtype == torch.float32
