"""A checksum sees every change of a tensor's values, type and shape, and ignores its layout."""

from __future__ import annotations

import pytest
import torch

from fedbench.values import checksum


@pytest.mark.parametrize("size", [0, 1, 7, 4096, 8192, 3 * 8192 + 5, 10**5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16, torch.bool])
def test_a_checksum_sees_every_single_change(size: int, dtype: torch.dtype) -> None:
    tensor = (torch.arange(size) % 2).to(dtype)
    assert checksum(tensor) == checksum(tensor.clone())
    for index in {0, size // 2, size - 1} if size else ():
        other = tensor.clone()
        other[index] = 1 - other[index].to(torch.int64)
        assert checksum(other) != checksum(tensor)


def test_a_checksum_sees_type_shape_and_order_and_ignores_layout() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert checksum(x) != checksum(x.reshape(3, 2))
    assert checksum(x) != checksum(x.flip(0))
    assert checksum(torch.tensor([0.0])) != checksum(torch.tensor([-0.0]))
    zeros = torch.zeros(4)
    assert checksum(zeros) != checksum(zeros.to(torch.int32))
    assert checksum(x.t().contiguous().t()) == checksum(x)
    assert checksum(torch.arange(30_000.0)[1:]) == checksum(torch.arange(1.0, 30_000.0))


@pytest.mark.parametrize("size", [8, 4096, 4096 * 40])
def test_a_checksum_sees_swapped_parts_of_any_size(size: int) -> None:
    x = torch.arange(2 * size, dtype=torch.int64)
    assert checksum(torch.cat([x[size:], x[:size]])) != checksum(x)
