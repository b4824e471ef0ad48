"""The draws that Dirichlet partitions are made of: their distribution, and what they never do."""

from __future__ import annotations

import numpy as np
from fedbench_datasets.dirichlet import GROUP, capped_draw, capped_shares, cut, dirichlet_rows
from hypothesis import given, settings
from hypothesis import strategies as st


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=10)
@given(alpha=st.sampled_from([0.05, 0.5, 1.0, 5.0]), k=st.integers(2, 6))
def test_dirichlet_rows_have_the_mean_and_variance_of_the_distribution(alpha, k):
    rows = dirichlet_rows(alpha, (20_000, k), rng())
    assert np.allclose(rows.sum(1), 1)
    variance = (k - 1) / (k * k * (k * alpha + 1))
    assert np.allclose(rows.mean(0), 1 / k, atol=0.012)
    assert np.allclose(rows.var(0), variance, atol=0.012)


def test_dirichlet_rows_leave_out_who_takes_no_part_however_small_alpha_is():
    among = np.array([[True, False, True]] * 200)
    rows = dirichlet_rows(1e-6, (200, 3), rng(), among)
    assert np.isfinite(rows).all()
    assert (rows[:, 1] == 0).all()
    assert np.allclose(rows.sum(1), 1)


@given(
    total=st.integers(0, 1000),
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda w: sum(w) > 1e-3),
    seed=st.integers(0, 99),
)
def test_a_cut_rounds_every_share_up_or_down_and_loses_nothing(total, weights, seed):
    shares = np.array(weights) / sum(weights)
    parts = cut(np.array(total), shares, rng(seed))
    assert parts.sum() == total
    assert (np.abs(parts - total * shares) < 1 + 1e-6).all()
    assert (parts[shares == 0] == 0).all()


def test_a_cut_is_right_on_average():
    shares = np.array([0.1, 0.2, 0.7])
    parts = cut(np.full(20_000, 1), np.tile(shares, (20_000, 1)), rng())
    assert np.allclose(parts.mean(0), shares, atol=0.01)


def test_the_capped_draw_is_dirichlet_among_those_that_are_below():
    draws = [capped_draw(np.array([900, 100]), 2, 1.0, rng(seed)) for seed in range(2000)]
    first = np.sort([draw[0, 0] / 900 for draw in draws])
    assert np.abs(first - np.linspace(0, 1, 2000)).max() < 0.04  # Dir(1, 1) is uniform
    alone = [draw[1].max() == 100 for draw in draws if draw[0].max() >= 500]
    assert all(alone)
    assert len(alone) > 1500
    both = np.sort([draw[1, 0] / 100 for draw in draws if draw[0].max() < 500])
    assert np.abs(both - np.linspace(0, 1, len(both))).max() < 0.15


@settings(max_examples=15)
@given(
    counts=st.lists(
        st.lists(st.integers(0, 60), min_size=4, max_size=4), min_size=1, max_size=4
    ).filter(lambda rows: all(sum(row) >= 40 for row in rows)),
    last=st.integers(1, GROUP),
    seed=st.integers(0, 99),
)
def test_published_draw_stops_at_the_even_share_and_gives_each_half_of_it(counts, last, seed):
    table = np.array(counts)
    members = np.array([GROUP] * (len(counts) - 1) + [last])
    shares = capped_shares(table, members, 2.0, rng(seed))
    assert np.array_equal(shares.sum(2), table)
    for group, clients in zip(shares, members, strict=True):
        even = group.sum() / clients
        before = np.cumsum(group, axis=0) - group
        assert (group[before >= even] == 0).all()  # a full client draws nothing more
        assert (group.sum(0)[:clients] >= int(even / 2)).all()
        assert (group[:, clients:] == 0).all()
