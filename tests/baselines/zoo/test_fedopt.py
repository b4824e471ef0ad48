"""Adaptive server steps: each rule against a plain loop, hand numbers, and their properties."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.fedopt import adaptive_step
from hypothesis import given
from hypothesis import strategies as st

RULES = ("adagrad", "adam", "yogi")


def second(rule: str, v: float, square: float, beta2: float) -> float:
    if rule == "adagrad":
        return v + square
    if rule == "adam":
        return beta2 * v + (1 - beta2) * square
    sign = (v > square) - (v < square)
    return v - (1 - beta2) * square * sign


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 1000))
def test_three_rounds_of_a_loop(rule, seed):
    generator = torch.Generator().manual_seed(seed)
    lr, beta1, beta2, tau = 0.1, 0.9, 0.99, 1e-3
    w = torch.randn(4, generator=generator, dtype=torch.float64)
    m, v = torch.zeros_like(w), torch.full_like(w, tau**2)
    plain = [(x, 0.0, tau**2) for x in w.tolist()]
    for _ in range(3):
        update = torch.randn(4, generator=generator, dtype=torch.float64) * 0.01
        for j, (x, first, sq) in enumerate(plain):
            d = float(update[j])
            first = beta1 * first + (1 - beta1) * d
            sq = second(rule, sq, d * d, beta2)
            plain[j] = (x + lr * first / (math.sqrt(sq) + tau), first, sq)
        found = adaptive_step(
            {"w": w}, {"w": w + update}, {"w": m}, {"w": v}, rule, lr, beta1, beta2, tau
        )
        w, m, v = (part["w"] for part in found)
        torch.testing.assert_close(torch.stack([w, m, v]).T, w.new_tensor(plain))
        assert (v >= 0).all()


@pytest.mark.parametrize(("rule", "v"), [("adagrad", 5.0), ("adam", 2.5), ("yogi", 3.0)])
def test_one_step_by_hand(rule, v):
    """D = 2 and v = 1 before; half of each moment is kept; yogi adds, as v < D^2."""
    one, zero = {"w": torch.tensor([1.0])}, {"w": torch.tensor([0.0])}
    w, m, found = adaptive_step(zero, {"w": torch.tensor([2.0])}, zero, one, rule, 0.1, 0.5, 0.5, 1)
    assert float(m["w"]) == 1.0
    assert float(found["w"]) == v
    assert float(w["w"]) == pytest.approx(0.1 / (v**0.5 + 1))
    assert zero["w"].item() == 0


def test_there_is_no_bias_correction():
    """The first step of Adam with bias correction would be the rate itself."""
    zero = {"w": torch.zeros(1)}
    small = {"w": torch.full((1,), 1e-6)}
    w, *_ = adaptive_step(zero, {"w": torch.ones(1)}, zero, small, "adam", 1.0, 0.9, 0.99, 1e-3)
    assert float(w["w"]) == pytest.approx(0.1 / (0.01 + 0.99e-6) ** 0.5, rel=0.02)


@pytest.mark.parametrize("rule", RULES)
def test_without_an_update_nothing_moves(rule):
    w = {"w": torch.tensor([0.3, -2.0])}
    zero = {"w": torch.zeros(2)}
    new, m, v = adaptive_step(w, w, zero, zero, rule, 0.1, 0.9, 0.99, 1e-3)
    assert torch.equal(new["w"], w["w"])
    assert m["w"].tolist() == v["w"].tolist() == [0, 0]
    assert new["w"].dtype == torch.float32
