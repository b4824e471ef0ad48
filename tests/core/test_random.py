"""A stream depends on seed, round, client and purpose, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedbench.random import Streams

coordinates = st.tuples(
    st.integers(0, 2**63 - 1),
    st.text(max_size=8) | st.sampled_from(["1", "1/2", "/", "2/1/x"]),
    st.integers(-1, 20),
    st.integers(-1, 20),
)


def key(seed: int, purpose: str, round: int, client: int) -> int:
    return Streams(seed).key(purpose, round, client)


@given(coordinates, coordinates)
def test_keys_are_equal_exactly_when_all_four_coordinates_are(one, two):
    assert (key(*one) == key(*two)) == (one == two)


@pytest.mark.parametrize(
    "other",
    [
        (8, "batches", 1, 2),
        (7, "batches2", 1, 2),
        (7, "batches", 2, 2),
        (7, "batches", 1, 3),
        (7, "batches", 2, 1),
    ],
)
def test_each_coordinate_changes_the_numbers(other):
    seed, purpose, round, client = other
    mine, theirs = Streams(7), Streams(seed)
    a = mine.torch("batches", 1, 2), theirs.torch(purpose, round, client)
    assert not torch.equal(*(torch.rand(8, generator=g) for g in a))
    b = mine.numpy("batches", 1, 2), theirs.numpy(purpose, round, client)
    assert not np.array_equal(*(g.random(8) for g in b))


def test_every_call_starts_the_stream_anew_whatever_was_drawn_elsewhere():
    streams = Streams(0)
    first = torch.rand(4, generator=streams.torch("x", 1, 2))
    second = streams.numpy("x", 1, 2).random(4)
    torch.manual_seed(99)
    torch.rand(10)
    np.random.seed(99)
    torch.rand(3, generator=streams.torch("y", 1, 2))
    assert torch.equal(first, torch.rand(4, generator=streams.torch("x", 1, 2)))
    assert np.array_equal(second, streams.numpy("x", 1, 2).random(4))


def test_the_numbers_never_change_between_releases():
    # Old runs must be repeatable from their configs alone, so these values must never change.
    streams = Streams(0)
    assert streams.key("partition") == 337339598549294646933944585428934450733
    assert streams.numpy("partition").integers(0, 1000, 4).tolist() == [149, 186, 123, 505]
    assert torch.randint(0, 1000, (4,), generator=streams.torch("partition")).tolist() == [
        519,
        986,
        932,
        343,
    ]


def test_scope_seeds_the_global_generator_and_restores_it():
    streams = Streams(3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with streams.scope("model"):
        inside = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inside, torch.rand(4, generator=streams.torch("model")))


def test_scope_restores_the_global_generator_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), Streams(3).scope("model"):
        float(torch.rand(4).sum()) / 0
    assert torch.equal(torch.get_rng_state(), before)
