"""signSGD: one bit per entry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fedbench_baselines.signsgd import SignSgd, decode, encode
from hypothesis import given
from hypothesis import strategies as st

numbers = st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=40)


@given(numbers)
def test_bits_and_scale_against_numpy(values: list[float]) -> None:
    packed, scale = encode(torch.tensor(values))
    assert packed.tolist() == np.packbits(np.array(values) >= 0).tolist()
    assert len(packed) == math.ceil(len(values) / 8)
    mean = sum(map(abs, values)) / len(values)
    torch.testing.assert_close(scale, torch.tensor(mean))


@given(numbers)
def test_decoding_returns_the_sign_of_every_entry_times_the_scale(values: list[float]) -> None:
    given = torch.tensor(values)
    packed, scale = encode(given)
    expected = torch.tensor([1.0 if x >= 0 else -1.0 for x in values]) * scale
    assert decode(packed, scale, len(values)).equal(expected)
    assert decode(packed, torch.tensor(1.0), len(values)).abs().eq(1).all()
    assert given.equal(torch.tensor(values))


def test_by_hand() -> None:
    packed, scale = encode(torch.tensor([1.0, -2.0, 0.0, 3.0, -1.0, -1.0, -1.0, -1.0, 8.0]))
    assert packed.tolist() == [0b10110000, 0b10000000]
    assert scale.item() == 2.0
    assert decode(packed, scale, 9).tolist() == [2, -2, 2, 2, -2, -2, -2, -2, 2]


def test_zero_counts_as_positive_and_decodes_to_zero() -> None:
    packed, scale = encode(torch.tensor([0.0, -0.0]))
    assert packed.tolist() == [0b11000000]
    assert decode(packed, scale, 2).tolist() == [0.0, 0.0]


def test_the_mean_magnitude_is_the_scale_nearest_to_the_values() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    packed, scale = encode(values)
    errors = [
        float((decode(packed, scale * factor, 50) - values).square().sum())
        for factor in (0.99, 1.0, 1.01)
    ]
    assert min(errors) == errors[1]


def test_feedback_of_a_scale_that_is_no_contraction_is_refused() -> None:
    with pytest.raises(ValueError, match="feedback needs scale: mean"):
        SignSgd(feedback=True, scale="one")
    SignSgd(feedback=True)
    SignSgd(scale="one")


def test_types() -> None:
    packed, scale = encode(torch.ones(3, dtype=torch.float64))
    assert (packed.dtype, scale.dtype, scale.shape) == (torch.uint8, torch.float64, ())
    assert decode(packed, scale, 3).dtype == torch.float64
    assert decode(packed, scale.float(), 3).dtype == torch.float32
