"""A checksum sees every change of a tensor's values, type and shape, and ignores its layout."""

from __future__ import annotations

import pytest
import torch

from fedbench.values import checksum, raw_bytes, sha256


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


LAYOUTS = {
    "plain": torch.arange(6.0).reshape(2, 3),
    "one element with a stride": torch.arange(4)[::2][1:],
    "turned": torch.arange(6.0).reshape(2, 3).t(),
    "repeated": torch.arange(3).expand(2, 3),
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 3),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_bytes_are_those_of_the_elements_in_order_whatever_the_layout(name: str) -> None:
    tensor = LAYOUTS[name]

    assert bytes(raw_bytes(tensor)) == tensor.numpy().tobytes("C")
    plain = tensor.clone(memory_format=torch.contiguous_format)
    assert checksum(tensor) == checksum(plain)
    assert sha256({"value": tensor}) == sha256({"value": plain})
