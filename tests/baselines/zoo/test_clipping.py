"""Clipping of an update to a norm."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.clipping import clip
from hypothesis import given
from hypothesis import strategies as st


def norm(update: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(x * x for d in update.values() for x in d.flatten().tolist()))


def test_the_norm_is_over_all_tensors_together() -> None:
    update = {"weight": torch.tensor([[3.0, 0.0]]), "bias": torch.tensor([4.0])}
    clipped = clip(update, 2.5)
    assert clipped["weight"].tolist() == [[1.5, 0.0]]
    assert clipped["bias"].tolist() == [2.0]
    assert update["bias"].tolist() == [4.0]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_the_direction_stays_and_the_norm_is_at_most_the_bound(
    values: list[float], bound: float
) -> None:
    update = {"a": torch.tensor(values, dtype=torch.float64), "b": torch.ones(1).double()}
    clipped = clip(update, bound)
    factor = min(1.0, bound / norm(update))
    assert norm(clipped) == pytest.approx(min(bound, norm(update)))
    for k, d in update.items():
        torch.testing.assert_close(clipped[k], factor * d)


def test_an_update_within_the_bound_keeps_its_bits() -> None:
    update = {"w": torch.randn(100, generator=torch.Generator().manual_seed(0))}
    assert clip(update, 1e3)["w"].equal(update["w"])
    assert clip({"w": torch.tensor([3.0, 4.0])}, 5.0)["w"].tolist() == [3.0, 4.0]


def test_an_update_of_0_stays_0() -> None:
    zero = {"w": torch.zeros(3)}
    assert clip(zero, 1.0)["w"].tolist() == [0.0] * 3
    assert clip(zero, 0.0)["w"].tolist() == [0.0] * 3
    assert clip({"w": torch.ones(3)}, 0.0)["w"].tolist() == [0.0] * 3


def test_the_norm_does_not_overflow_in_the_type_of_the_update() -> None:
    clipped = clip({"w": torch.tensor([3e30, 4e30])}, 5.0)["w"]
    torch.testing.assert_close(clipped, torch.tensor([3.0, 4.0]))
    assert clipped.dtype == torch.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_that_is_not_finite_does_not_become_finite(bad: float) -> None:
    assert not clip({"w": torch.tensor([bad, 1.0])}, 1.0)["w"].isfinite().all()
