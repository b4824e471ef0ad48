"""Weights as vectors: sums, differences, norms, and one flat vector and back."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.vectors import (
    combined,
    difference,
    flat,
    restored,
    squared_norm,
    weighted_sum,
)
from hypothesis import given
from hypothesis import strategies as st

ONE = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
TWO = {"b": torch.tensor(-1.0), "w": torch.tensor([0.5, 4.0])}


def test_a_formula_is_applied_by_name_in_float64_and_types_are_kept():
    seen = []

    def formula(a, b):
        seen.append((a.dtype, b.dtype))
        return a - 2 * b

    half = {name: w.half() for name, w in ONE.items()}
    found = combined(formula, half, TWO)
    assert found["w"].tolist() == [0.0, -6.0]
    assert float(found["b"]) == 5.0
    assert {w.dtype for w in found.values()} == {torch.float16}
    assert seen == [(torch.float64, torch.float64)] * 2


def test_a_missing_name_is_an_error():
    with pytest.raises(KeyError, match="b"):
        combined(torch.add, ONE, {"w": ONE["w"]})


def test_differences_are_exact_where_float32_would_round():
    big = {"w": torch.tensor([1.0], dtype=torch.float64)}
    small = {"w": torch.tensor([1e-10])}
    assert float(difference(small, big)["w"]) == pytest.approx(1e-10 - 1, abs=1e-16)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5), st.integers(0, 1000))
def test_a_weighted_sum_is_that_of_a_loop(factors, seed):
    generator = torch.Generator().manual_seed(seed)
    items = [({"w": torch.randn(4, generator=generator)}, a) for a in factors]
    before = [w["w"].clone() for w, _ in items]
    found = weighted_sum(iter(items))["w"]
    for j in range(4):
        assert float(found[j]) == pytest.approx(
            sum(a * float(w["w"][j]) for w, a in items), rel=1e-5, abs=1e-6
        )
    assert found.dtype == torch.float32
    assert all(torch.equal(w["w"], old) for (w, _), old in zip(items, before, strict=True))


def test_many_small_terms_are_not_lost():
    items = [({"w": torch.tensor([2.0**24])}, 1.0), *(({"w": torch.ones(1)}, 1.0),) * 1000]
    assert float(weighted_sum(items)["w"]) == 2**24 + 1000


def test_float64_weights_are_not_written_to():
    first = {"w": torch.ones(2, dtype=torch.float64)}
    weighted_sum([(first, 1.0), (first, 1.0)])
    assert first["w"].tolist() == [1, 1]


def test_no_item_is_an_error():
    with pytest.raises(ValueError, match="needs at least one item"):
        weighted_sum([])


def test_the_norm_is_over_all_tensors_together():
    assert squared_norm(ONE) == 14.0


def test_flat_vectors_agree_whatever_the_order_of_names():
    assert flat(ONE).tolist() == [3.0, 1.0, 2.0]
    assert flat(TWO).tolist() == [-1.0, 0.5, 4.0]


def test_a_flat_vector_and_back():
    weights = {
        "w": torch.arange(6.0).reshape(2, 3),
        "seen": torch.tensor(7),
        "h": torch.tensor([1.5]).half(),
    }
    vector = flat(weights)
    found = restored(2 * vector, weights)
    assert list(found) == list(weights)
    assert found["w"].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert (found["h"].item(), found["h"].dtype) == (3.0, torch.float16)
    assert found["seen"].item() == 7, "integer buffers are not part of the vector"
    found["w"].zero_()
    assert flat(weights).tolist() == vector.tolist(), "what came in is left alone"


def test_a_vector_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"a vector of 3 numbers, got \(4,\)"):
        restored(torch.zeros(4), ONE)
