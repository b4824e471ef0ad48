"""Krum's scores and its choice of clients."""

from __future__ import annotations

import re

import pytest
import torch
from fedbench_baselines.krum import scores, select
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedbench import ConfigError


def draw(clients: int, n: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clients, n, generator=generator, dtype=torch.float64)


def plain(points: Tensor, byzantine: int) -> list[float]:
    """Return the scores, pair by pair."""
    found = []
    for i, one in enumerate(points.tolist()):
        others = [other for j, other in enumerate(points.tolist()) if j != i]
        squares = [sum((a - b) ** 2 for a, b in zip(one, o, strict=True)) for o in others]
        found.append(sum(sorted(squares)[: len(points) - byzantine - 2]))
    return found


@given(st.integers(0, 2), st.integers(0, 4), st.integers(0, 99))
def test_scores_against_a_loop(byzantine: int, more: int, seed: int) -> None:
    points = draw(2 * byzantine + 3 + more, seed=seed)
    expected = torch.tensor(plain(points, byzantine), dtype=torch.float64)
    torch.testing.assert_close(scores(points, byzantine), expected)


def test_scores_by_hand() -> None:
    """Five clients on a line, one malicious: the two nearest others count, squared."""
    points = torch.tensor([[0.0], [1.0], [3.0], [6.0], [100.0]])
    assert scores(points, 1).tolist() == [1 + 9, 1 + 4, 4 + 9, 9 + 25, 94**2 + 97**2]
    assert select(points, 1, 3).tolist() == [1, 0, 2]
    assert select(points, 1, 1).dtype == torch.int64


@given(st.integers(1, 7), st.integers(0, 99))
def test_select_orders_all_clients_by_score(keep: int, seed: int) -> None:
    points = draw(7, seed=seed)
    chosen = select(points, 2, keep).tolist()
    assert chosen == sorted(range(7), key=plain(points, 2).__getitem__)[:keep]


def test_ties_go_to_the_lower_index() -> None:
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert select(corners, 0, 4).tolist() == [0, 1, 2, 3]
    assert scores(torch.ones(5, 3), 1).tolist() == [0.0] * 5
    assert select(torch.ones(5, 3), 1, 3).tolist() == [0, 1, 2]


def test_near_vectors_far_from_the_origin_are_told_apart() -> None:
    """Distances by ``|a|^2 - 2 a b + |b|^2`` would all be 0 here."""
    points = 1e9 + torch.tensor([[0.0], [1.0], [3.0], [6.0]], dtype=torch.float64)
    assert scores(points, 0).tolist() == [1 + 9, 1 + 4, 4 + 9, 9 + 25]


@pytest.mark.parametrize("bad", [1e30, -torch.inf, torch.nan])
def test_bad_clients_are_chosen_last(bad: float) -> None:
    points = torch.cat([torch.full((2, 4), bad), draw(5).float()])
    assert set(select(points, 2, 5).tolist()) == {2, 3, 4, 5, 6}


def test_the_vector_chosen_does_not_depend_on_the_order_of_clients() -> None:
    points = draw(7)
    (first,), (second,) = select(points, 2, 1).tolist(), select(points.flip(0), 2, 1).tolist()
    assert first == 6 - second


def test_types_are_kept_and_arguments_stay() -> None:
    points = draw(5)
    assert scores(points.float(), 1).dtype == torch.float32
    select(points, 1, 2)
    assert points.equal(draw(5))


@pytest.mark.parametrize(("clients", "byzantine", "least"), [(4, 1, 5), (2, 0, 3), (5, -1, 3)])
def test_too_few_clients_are_an_error(clients: int, byzantine: int, least: int) -> None:
    text = f"byzantine = {byzantine} needs at least {least} clients in every round, and there are"
    with pytest.raises(ConfigError, match=re.escape(f"{text} {clients}")):
        scores(torch.zeros(clients, 2), byzantine)
    with pytest.raises(ConfigError, match=re.escape(text)):
        select(torch.zeros(clients, 2), byzantine, 1)


@pytest.mark.parametrize("keep", [0, 6, -1])
def test_keeping_none_or_more_than_there_are_is_an_error(keep: int) -> None:
    with pytest.raises(ConfigError, match=f"keep = {keep} must be from 1 to 5"):
        select(draw(5), 1, keep)
