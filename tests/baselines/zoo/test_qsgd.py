"""QSGD: random rounding to a few levels."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from fedbench_baselines.qsgd import dequantize, quantize
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedbench import ConfigError

Norm = Literal["l2", "max"]
NORMS: list[Norm] = ["l2", "max"]


def draw(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return values and uniform draws."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator), torch.rand(n, generator=generator)


@given(st.integers(1, 127), st.sampled_from(NORMS), st.integers(0, 99))
def test_codes_against_a_loop(levels: int, norm: Norm, seed: int) -> None:
    values, draws = (x.double() for x in draw(7, seed))
    codes, scale = quantize(values, levels, draws, norm)
    size = math.hypot(*values.tolist()) if norm == "l2" else max(map(abs, values.tolist()))
    assert float(scale) == pytest.approx(size)
    expected = [
        math.copysign(math.floor(abs(x) / float(scale) * levels + u), x)
        for x, u in zip(values.tolist(), draws.tolist(), strict=True)
    ]
    assert codes.tolist() == expected
    back = [code * float(scale) / levels for code in expected]
    torch.testing.assert_close(
        dequantize(codes, scale, levels), torch.tensor(back, dtype=torch.float64)
    )


def test_by_hand() -> None:
    values, draws = torch.tensor([3.0, -4.0, 0.0]), torch.tensor([0.4, 0.5, 0.9])
    codes, scale = quantize(values, 4, draws, "max")
    assert (codes.tolist(), scale.item()) == ([3, -4, 0], 4.0)
    codes, scale = quantize(values, 4, draws, "l2")  # 2.4 + 0.4, 3.2 + 0.5
    assert (codes.tolist(), scale.item()) == ([2, -3, 0], 5.0)
    torch.testing.assert_close(dequantize(codes, scale, 4), torch.tensor([2.5, -3.75, 0.0]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("levels", [1, 5, 127])
def test_the_mean_over_evenly_spread_draws_is_the_value(levels: int, norm: Norm) -> None:
    values, _ = (x.double() for x in draw(20))
    number = 2000
    every = [
        dequantize(*quantize(values, levels, torch.full((20,), (i + 0.5) / number), norm), levels)
        for i in range(number)
    ]
    scale = quantize(values, levels, values, norm)[1]
    mean = torch.stack(every).mean(dim=0)
    torch.testing.assert_close(mean, values, rtol=0, atol=float(scale) / levels / number)


@pytest.mark.parametrize("norm", NORMS)
def test_no_value_is_off_by_a_level_or_more(norm: Norm) -> None:
    values, draws = draw(1000)
    codes, scale = quantize(values, 127, draws, norm)
    step = float(scale) / 127
    assert (dequantize(codes, scale, 127) - values).abs().max() < step * (1 + 1e-6)


def test_the_largest_value_fits_into_a_byte_with_the_largest_draw() -> None:
    """127 plus the draw is 128 in float32, and the code would wrap around to -128."""
    values = torch.tensor([2.5, -2.5])
    for below in (1 - 2**-24, 1 - 2**-53):
        draws = torch.full((2,), below, dtype=torch.float64)
        for norm in NORMS:
            codes, scale = quantize(values[:1], 127, draws[:1], norm)
            assert codes.tolist() == [127]
            assert dequantize(codes, scale, 127).tolist() == [2.5]
        codes, scale = quantize(values, 127, draws.float(), "max")
        assert codes.tolist() == [127, -127]


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_vector(norm: Norm) -> None:
    codes, scale = quantize(torch.zeros(3), 127, torch.full((3,), 0.999), norm)
    assert (codes.tolist(), scale.item()) == ([0, 0, 0], 0.0)
    assert dequantize(codes, scale, 127).tolist() == [0.0] * 3


def test_tiny_and_huge_values_neither_vanish_nor_overflow() -> None:
    for size in (1e-40, 1e30):
        values = torch.tensor([size, -size])
        codes, scale = quantize(values, 127, torch.tensor([0.5, 0.5]), "l2")
        assert codes.tolist() == [90, -90]  # 127 / sqrt(2) + 0.5
        torch.testing.assert_close(dequantize(codes, scale, 127), values * 90 * 2**0.5 / 127)


def test_types_are_kept_and_arguments_stay() -> None:
    values, draws = draw(5)
    codes, scale = quantize(values, 127, draws, "max")
    assert (codes.dtype, scale.dtype, scale.shape) == (torch.int8, torch.float32, ())
    assert dequantize(codes, scale, 127).dtype == torch.float32
    assert values.equal(draw(5)[0])
    assert draws.equal(draw(5)[1])


@pytest.mark.parametrize("levels", [0, 128, -1])
def test_levels_that_do_not_fit_are_an_error(levels: int) -> None:
    with pytest.raises(ConfigError, match=f"levels = {levels} must be from 1 to 127"):
        quantize(torch.ones(2), levels, torch.zeros(2), "max")
