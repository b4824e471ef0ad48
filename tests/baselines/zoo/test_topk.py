"""Top-k and its error feedback."""

from __future__ import annotations

import torch
from fedbench_baselines.topk import compensate, top_k
from hypothesis import given
from hypothesis import strategies as st

few = st.lists(st.integers(-4, 4), min_size=1, max_size=8)
"""Small integers, so that magnitudes are often equal."""


@given(few, st.integers(1, 9))
def test_against_sorted_lists(numbers: list[int], keep: int) -> None:
    values, indices = top_k(torch.tensor(numbers, dtype=torch.float32), keep)
    best = sorted(range(len(numbers)), key=lambda i: (-abs(numbers[i]), i))[:keep]
    assert indices.tolist() == sorted(best)
    assert values.tolist() == [numbers[i] for i in sorted(best)]


def test_by_hand_and_types() -> None:
    values, indices = top_k(torch.tensor([1.0, -5.0, 2.0, 5.0]), 2)
    assert values.tolist() == [-5.0, 5.0]
    assert indices.tolist() == [1, 3]
    assert (values.dtype, indices.dtype) == (torch.float32, torch.int32)
    assert top_k(torch.ones(3, dtype=torch.float64), 1)[0].dtype == torch.float64


def test_equal_magnitudes_go_to_the_lower_index() -> None:
    values, indices = top_k(torch.ones(1000) * torch.tensor([1.0, -1.0]).repeat(500), 3)
    assert indices.tolist() == [0, 1, 2]
    assert values.tolist() == [1.0, -1.0, 1.0]


@given(few, st.integers(1, 9), st.integers(0, 9))
def test_what_is_sent_and_what_is_left_add_up(numbers: list[int], keep: int, seed: int) -> None:
    update = torch.tensor(numbers, dtype=torch.float32)
    residual = torch.randn(len(numbers), generator=torch.Generator().manual_seed(seed))
    before = update.clone(), residual.clone()
    values, indices, left = compensate(update, residual, keep)
    sent = torch.zeros_like(update)
    sent[indices.long()] = values
    assert (sent + left).equal(update + residual)
    assert (left[indices.long()] == 0).all()
    assert update.equal(before[0])
    assert residual.equal(before[1])


def test_sending_everything_leaves_nothing() -> None:
    update = torch.tensor([0.5, -0.0, 3.0])
    values, indices, left = compensate(update, torch.zeros(3), 3)
    assert values.tolist() == [0.5, 0.0, 3.0]
    assert indices.tolist() == [0, 1, 2]
    assert left.tolist() == [0.0] * 3


def test_with_error_feedback_every_entry_is_sent_in_the_end() -> None:
    """A constant update: all that was sent is all that there was, except for the last residual."""
    update = torch.tensor([3.0, -2.0, 1.0])
    sent, residual = torch.zeros(3), torch.zeros(3)
    for turn in range(1, 61):
        values, indices, residual = compensate(update, residual, 1)
        sent[indices.long()] += values
        assert (sent + residual).equal(turn * update)
        assert residual.abs().max() <= update.abs().sum()
    assert (sent != 0).all()
