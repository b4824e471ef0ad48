"""AFL: projection onto the simplex."""

from __future__ import annotations

import itertools

import pytest
import torch
from fedbench_baselines.afl import project_simplex
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

vectors = st.lists(st.floats(-100, 100), min_size=1, max_size=5).map(
    lambda x: torch.tensor(x, dtype=torch.float64)
)


def plain(values: Tensor) -> Tensor:
    """Return the nearest of the projections onto all faces of the simplex."""
    found = []
    for size in range(1, len(values) + 1):
        for face in map(list, itertools.combinations(range(len(values)), size)):
            point = torch.zeros_like(values)
            point[face] = values[face] - (values[face].sum() - 1) / size
            if (point >= 0).all():
                found.append(point)
    return min(found, key=lambda point: float((point - values).square().sum()))


@given(vectors)
def test_projection_against_a_search_of_all_faces(values: Tensor) -> None:
    torch.testing.assert_close(project_simplex(values), plain(values), rtol=0, atol=1e-10)


@given(vectors, st.floats(-1e3, 1e3))
def test_a_constant_added_to_all_changes_nothing(values: Tensor, constant: float) -> None:
    moved = project_simplex(values + constant)
    torch.testing.assert_close(moved, project_simplex(values), rtol=0, atol=1e-10)


@given(vectors)
def test_a_point_of_the_simplex_stays(values: Tensor) -> None:
    point = torch.softmax(values, dim=0)
    torch.testing.assert_close(project_simplex(point), point, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], [1.0]),
        ([0.0, 0.0], [0.5, 0.5]),
        ([0.9, 0.5], [0.7, 0.3]),
        ([2.0, 0.0, 0.5], [1.0, 0.0, 0.0]),
        ([0.5, 0.5, -1.0], [0.5, 0.5, 0.0]),
        ([-3.0, -3.0, -3.0, -3.0], [0.25] * 4),
    ],
)
def test_projection_by_hand(values: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(project_simplex(torch.tensor(values)), torch.tensor(expected))


def test_large_values_and_types() -> None:
    values = torch.tensor([1e30, 1e30, -1e30])
    assert project_simplex(values).tolist() == [0.5, 0.5, 0.0]
    assert project_simplex(values).dtype == torch.float32
    assert values.tolist()[0] == pytest.approx(1e30)
