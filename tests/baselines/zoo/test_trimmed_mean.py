"""Trimmed mean, coordinate by coordinate."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.trimmed_mean import trimmed_mean
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedbench import ConfigError

matrices = st.integers(1, 7).flatmap(
    lambda k: st.lists(st.lists(st.floats(-9, 9), min_size=k, max_size=k), min_size=1, max_size=3)
)
"""Columns of numbers: one list per coordinate, with one number per client."""


def rows(columns: list[list[float]]) -> Tensor:
    return torch.tensor(columns, dtype=torch.float64).T


@given(matrices, st.integers(0, 3))
def test_against_sorted_lists(columns: list[list[float]], trim: int) -> None:
    trim = min(trim, (len(columns[0]) - 1) // 2)
    kept = [sorted(column)[trim : len(column) - trim] for column in columns]
    expected = torch.tensor([sum(k) / len(k) for k in kept], dtype=torch.float64)
    torch.testing.assert_close(trimmed_mean(rows(columns), trim), expected)


def test_trimming_nothing_is_the_plain_mean() -> None:
    points = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(trimmed_mean(points, 0), points.mean(dim=0))
    assert trimmed_mean(points[:1], 0).equal(points[0])


@pytest.mark.parametrize("bad", [1e30, -1e30, torch.inf, -torch.inf, torch.nan])
def test_as_many_bad_clients_as_are_trimmed_stay_without_effect(bad: float) -> None:
    honest = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    points = torch.cat([torch.full((2, 4), bad), honest])
    result = trimmed_mean(points, 2)
    assert (honest.amin(dim=0) <= result).all()
    assert (result <= honest.amax(dim=0)).all()


def test_the_order_of_clients_does_not_matter_and_arguments_stay() -> None:
    points = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    before = points.clone()
    assert trimmed_mean(points, 2).equal(trimmed_mean(points.flip(0), 2))
    assert trimmed_mean(points, 2).dtype == torch.float32
    assert points.equal(before)


def test_the_mean_is_in_float64() -> None:
    """In float32, 1 would be lost beside 2^26."""
    points = torch.tensor([[2.0**26], [1.0], [1.0], [-(2.0**26)]])
    assert trimmed_mean(points, 0).item() == 0.5


@pytest.mark.parametrize(("clients", "trim"), [(4, 2), (1, 1), (5, 3), (5, -1)])
def test_a_trim_that_leaves_nothing_is_an_error(clients: int, trim: int) -> None:
    with pytest.raises(ConfigError, match=rf"{clients} clients .* {trim} largest .* below half"):
        trimmed_mean(torch.zeros(clients, 2), trim)
