"""Median, coordinate by coordinate."""

from __future__ import annotations

import statistics

import pytest
import torch
from fedbench_baselines.median import coordinate_median
from hypothesis import given
from hypothesis import strategies as st

columns = st.integers(1, 7).flatmap(
    lambda k: st.lists(st.lists(st.floats(-9, 9), min_size=k, max_size=k), min_size=1, max_size=3)
)
"""Columns of numbers: one list per coordinate, with one number per client."""


@given(columns)
def test_against_the_standard_library(columns: list[list[float]]) -> None:
    points = torch.tensor(columns, dtype=torch.float64).T
    expected = torch.tensor([statistics.median(c) for c in columns], dtype=torch.float64)
    torch.testing.assert_close(coordinate_median(points), expected, rtol=0, atol=1e-15)


def test_an_even_number_of_clients_gives_the_mean_of_the_two_middle_values() -> None:
    points = torch.tensor([[1.0, 8.0], [7.0, 2.0], [2.0, 4.0], [4.0, 6.0]])
    assert coordinate_median(points).tolist() == [3.0, 5.0]
    assert points.median(dim=0).values.tolist() == [2.0, 4.0]  # the lower ones


def test_the_median_of_an_odd_number_is_one_of_the_values_bit_for_bit() -> None:
    points = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    assert coordinate_median(points).equal(points.median(dim=0).values)
    assert coordinate_median(points[:1]).equal(points[0])


@pytest.mark.parametrize("bad", [1e30, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize(("honest", "malicious"), [(3, 2), (4, 2), (2, 1)])
def test_fewer_than_half_cannot_move_it_out_of_the_others(
    bad: float, honest: int, malicious: int
) -> None:
    good = torch.randn(honest, 4, generator=torch.Generator().manual_seed(0))
    median = coordinate_median(torch.cat([good, torch.full((malicious, 4), bad)]))
    assert (good.amin(dim=0) <= median).all()
    assert (median <= good.amax(dim=0)).all()
