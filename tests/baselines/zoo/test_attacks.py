"""Attacks: flipped labels, hidden and reversed updates, backdoors."""

from __future__ import annotations

import statistics

import pytest
import torch
from fedbench_baselines.attacks import (
    alie,
    alie_factor,
    flip_labels,
    ipm,
    replace_model,
    stamp,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedbench import ConfigError


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_labels_are_reversed_or_moved_to_the_next_class() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    assert flip_labels(labels, 5, "reverse").tolist() == [4, 3, 2, 1, 0, 4]
    assert flip_labels(labels, 5, "next").tolist() == [1, 2, 3, 4, 0, 1]
    assert flip_labels(labels, 5, "next").dtype == torch.int64
    assert labels.tolist() == [0, 1, 2, 3, 4, 0]


@given(st.lists(st.integers(0, 1)))
def test_with_two_classes_both_forms_exchange_them(labels: list[int]) -> None:
    given = torch.tensor(labels, dtype=torch.int64)
    expected = [1 - y for y in labels]
    assert flip_labels(given, 2, "reverse").tolist() == expected
    assert flip_labels(given, 2, "next").tolist() == expected


def test_alie_against_the_standard_library() -> None:
    points = draw(4, 6)
    columns = points.T.tolist()
    expected = [statistics.fmean(c) - 1.5 * statistics.pstdev(c) for c in columns]
    torch.testing.assert_close(alie(points, 1.5), torch.tensor(expected, dtype=torch.float64))
    assert alie(points.float(), 1.5).dtype == torch.float32


def test_alie_of_one_malicious_client_is_its_own_update() -> None:
    points = draw(1, 6)
    assert alie(points, 1.5).equal(points[0])


def test_alie_s_factor_by_hand() -> None:
    # n = 50, m = 24: s = 26 - 24 = 2, so (50 - 24 - 2) / (50 - 24) = 24 / 26
    assert statistics.NormalDist().cdf(alie_factor(50, 24)) == pytest.approx(24 / 26)
    assert alie_factor(50, 24) == pytest.approx(1.4261, abs=1e-4)
    assert alie_factor(3, 1) == 0.0  # s = 1: (3 - 1 - 1) / (3 - 1)
    assert alie_factor(10, 5) == pytest.approx(0.8416, abs=1e-4)  # s = 1: 4 / 5


@given(st.integers(3, 60))
def test_alie_s_factor_grows_with_the_number_of_malicious_clients(clients: int) -> None:
    factors = [alie_factor(clients, m) for m in range(1, clients // 2 + 1)]
    assert factors == sorted(set(factors))


@pytest.mark.parametrize(("clients", "malicious"), [(2, 1), (10, 6), (10, 10), (5, -1), (1, 0)])
def test_without_a_factor_it_is_an_error(clients: int, malicious: int) -> None:
    with pytest.raises(ConfigError, match=f"from {clients} clients with {malicious} malicious"):
        alie_factor(clients, malicious)


def test_ipm_is_the_mean_backwards() -> None:
    points = torch.tensor([[1.0, 4.0], [3.0, -2.0]])
    assert ipm(points, 0.5).tolist() == [-1.0, -0.5]
    assert ipm(points, 0.5).dtype == torch.float32
    assert points.tolist() == [[1.0, 4.0], [3.0, -2.0]]


@pytest.mark.parametrize(("epsilon", "turned"), [(0.1, False), (1.9, False), (2.1, True)])
def test_ipm_turns_the_mean_around_above_the_ratio_of_honest_to_malicious_clients(
    epsilon: float, turned: bool
) -> None:
    honest = draw(4, 6)
    malicious = ipm(honest, epsilon).expand(2, 6)
    product = torch.cat([honest, malicious]).mean(dim=0) @ honest.mean(dim=0)
    assert bool(product < 0) == turned


def test_a_replaced_model_is_the_mean_if_the_others_change_nothing() -> None:
    received, trained = ({"w": draw(3, seed=s), "b": draw(2, seed=s)} for s in (1, 2))
    sent = replace_model(received, trained, 10)
    for k in received:
        torch.testing.assert_close((9 * received[k] + sent[k]) / 10, trained[k])
        torch.testing.assert_close(sent[k], received[k] + 10 * (trained[k] - received[k]))


def test_factor_1_and_an_unchanged_model_are_exact() -> None:
    received, trained = ({"w": draw(9, seed=s).float()} for s in (1, 2))
    assert replace_model(received, trained, 1)["w"].equal(trained["w"])
    assert replace_model(received, received, 100)["w"].equal(received["w"])
    assert received["w"].equal(draw(9, seed=1).float())


def test_a_stamp_is_a_square_in_the_lower_right_corner_of_a_copy() -> None:
    images = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(torch.uint8)
    before = images.clone()
    stamped = stamp(images, 2, 255)
    corner = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    corner[:, :, 2:4, 3:5] = True
    assert (stamped[corner] == 255).all()
    assert stamped[~corner].equal(images[~corner])
    assert stamped.dtype == torch.uint8
    assert images.equal(before)


def test_the_largest_stamp_covers_the_shorter_side() -> None:
    stamped = stamp(torch.zeros(1, 1, 2, 3, dtype=torch.uint8), 2, 7)
    assert stamped[0, 0].tolist() == [[0, 7, 7], [0, 7, 7]]


@pytest.mark.parametrize("size", [0, -1, 5])
def test_a_stamp_that_does_not_fit_is_an_error(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"{size} x {size} .* of 4 x 5; .* from 1 to 4"):
        stamp(torch.zeros(1, 3, 4, 5, dtype=torch.uint8), size, 255)
