"""RFA: the geometric median by smoothed Weiszfeld steps."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_baselines.rfa import geometric_median
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor


def draw(clients: int = 5, n: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clients, n, generator=generator, dtype=torch.float64)


SHARES = torch.tensor([0.1, 0.3, 0.2, 0.15, 0.25], dtype=torch.float64)


def plain(
    points: list[list[float]], shares: list[float], iterations: int, nu: float, tolerance: float
) -> list[float]:
    """Return the median, number by number."""

    def mean(weights: list[float]) -> list[float]:
        both = list(zip(weights, points, strict=True))
        return [sum(w * x[j] for w, x in both) / sum(weights) for j in range(len(points[0]))]

    def objective(z: list[float]) -> float:
        return sum(a * math.dist(z, x) for a, x in zip(shares, points, strict=True))

    z = mean(shares)
    for _ in range(iterations):
        before = objective(z)
        both = zip(shares, points, strict=True)
        z = mean([a / max(nu, math.dist(z, x)) for a, x in both])
        if abs(before - objective(z)) < tolerance * objective(z):
            break
    return z


@given(st.integers(0, 99), st.integers(0, 6), st.sampled_from([0.0, 1e-6, 0.1]))
def test_against_a_loop(seed: int, iterations: int, tolerance: float) -> None:
    points = draw(seed=seed)
    z = geometric_median(points, SHARES, iterations, 1e-5, tolerance)
    expected = plain(points.tolist(), SHARES.tolist(), iterations, 1e-5, tolerance)
    torch.testing.assert_close(z, torch.tensor(expected, dtype=torch.float64))


def test_no_iteration_is_the_mean_weighted_by_shares_or_counts() -> None:
    points = draw()
    torch.testing.assert_close(geometric_median(points, SHARES, 0, 1e-5, 0.0), SHARES @ points)
    counts = torch.tensor([2, 6, 4, 3, 5])
    torch.testing.assert_close(
        geometric_median(points, counts, 4, 1e-5, 1e-6),
        geometric_median(points, SHARES, 4, 1e-5, 1e-6),
    )


def test_at_the_median_the_pulls_of_all_points_cancel() -> None:
    points = draw()
    z = geometric_median(points, SHARES, 1000, 1e-9, 0.0)
    pulls = (points - z) / (points - z).norm(dim=1, keepdim=True)
    torch.testing.assert_close(SHARES @ pulls, torch.zeros(3).double(), rtol=0, atol=1e-8)


def test_four_iterations_remove_nearly_all_of_an_outlier_s_pull() -> None:
    points = draw()
    points[0] = 1e6
    z = geometric_median(points, SHARES, 4, 1e-5, 1e-6)
    assert z.abs().max() < 1e-3 * (SHARES @ points).abs().min()


@pytest.mark.parametrize("far", [1e2, 1e6])
def test_a_point_that_holds_the_majority_is_the_median(far: float) -> None:
    points = torch.tensor([[1.0, 2.0]] * 3 + [[far, -far]] * 2, dtype=torch.float64)
    z = geometric_median(points, torch.ones(5), 200, 1e-5, 0.0)
    torch.testing.assert_close(z, points[0], rtol=0, atol=1e-3)


def test_equal_points_and_one_client() -> None:
    points = torch.full((4, 3), 0.1, dtype=torch.float64)
    torch.testing.assert_close(geometric_median(points, SHARES[:4], 4, 1e-5, 1e-6), points[0])
    one = draw(1)
    torch.testing.assert_close(geometric_median(one, torch.tensor([7]), 4, 1e-5, 1e-6), one[0])


def test_a_client_without_a_share_has_no_influence() -> None:
    points, shares = draw(), torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0])
    moved = points.clone()
    moved[4] = 100
    options = (4, 1e-5, 1e-6)
    one, two = (geometric_median(x, shares, *options) for x in (points, moved))
    torch.testing.assert_close(one, two)


def test_types_are_kept_and_arguments_stay() -> None:
    points = draw().float()
    assert geometric_median(points, SHARES, 4, 1e-5, 1e-6).dtype == torch.float32
    assert points.equal(draw().float())
