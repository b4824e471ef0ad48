"""Memory that a parent and its forked workers share, and tensors that use it without a copy."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..values import Value, assembled, kind_of, raw_bytes, tensors

ALIGN = 64
"""Bytes; tensors start at multiples of it, as PyTorch's own tensors do."""


class Block:
    """Makes tensors that use given memory, without a copy."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self._whole: dict[torch.dtype, Tensor] = {}

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> Tensor:
        """Return the contiguous tensor that starts ``offset`` bytes into the memory."""
        if dtype not in self._whole:
            self._whole[dtype] = torch.frombuffer(self._memory, dtype=dtype)
        whole = self._whole[dtype]
        return whole.as_strided(shape, _strides(shape), offset // whole.itemsize)


@lru_cache(10_000)
def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


def identical(one: Value, other: Value) -> bool:
    """Return whether two values are of one kind and made of the very same tensors."""
    if kind_of("", one) != kind_of("", other):
        return False
    mine, theirs = [*tensors(one)], [*tensors(other)]
    pairs = zip(mine, theirs, strict=False)
    return len(mine) == len(theirs) and all(a == b and x is y for (a, x), (b, y) in pairs)


def _aligned(size: int) -> int:
    return math.ceil(size / ALIGN) * ALIGN


class Buffer:
    """Memory that parent and children share because it is mapped before the fork."""

    def __init__(self, size: int, copies: Copies | None = None) -> None:
        size = _aligned(size)
        self._map = mmap.mmap(-1, size)
        self._block = Block(self._map)
        self._start = self._block.tensor(torch.uint8, (size,), 0).data_ptr()
        self._size, self._used = size, 0
        self._copies = copies or Copies()

    def clear(self) -> None:
        """Let new values overwrite the old ones."""
        self._used = 0

    def empty(self, like: Tensor) -> Tensor:
        """Return an uninitialised, contiguous CPU tensor like another; here if there is room."""
        size, offset = like.nbytes, self._used
        if size == 0 or offset + size > self._size:
            return torch.empty_like(like, device="cpu", memory_format=torch.contiguous_format)
        self._used = offset + _aligned(size)
        return self._block.tensor(like.dtype, tuple(like.shape), offset)

    def put(self, values: Mapping[str, Value], channels_last: bool = False) -> list[Any]:
        """Write the values that are not here already and return what `get` needs to read them.

        Tensors for which there is no room are returned as bytes. With ``channels_last``, tensors
        with four dimensions are laid out as convolutions use them.
        """
        places: list[Any] = []
        for key, value in values.items():
            start, end = self._size, 0
            parts: list[Any] = []
            for name, tensor in tensors(value):
                turned = channels_last and tensor.ndim == 4
                here = tensor.permute(0, 2, 3, 1) if turned else tensor
                if not (self._holds(here) and here.is_contiguous()):
                    here = self.empty(here).copy_(here)
                shape = tuple(here.shape)
                if self._holds(here):
                    offset = here.data_ptr() - self._start
                    start, end = min(start, offset), max(end, offset + here.nbytes)
                    parts.append((name, here.dtype, shape, turned, offset, None))
                else:
                    raw = bytes(raw_bytes(here))
                    parts.append((name, here.dtype, shape, turned, None, raw))
            places.append((key, kind_of(key, value), start, end, parts))
        return places

    def get(
        self,
        places: Sequence[Any],
        copied: Callable[[str, int], bool] = lambda key, size: False,
        memory: Any = None,
    ) -> dict[str, Value]:
        """Read what `put` wrote.

        Args:
            places: what `put` returned.
            copied: called with a key and its number of bytes; returns whether to copy the value.
                Other values stay in the shared memory.
            memory: what `lend` returned.
        """
        values = {}
        shared = self._block if memory is None else Block(memory)
        for key, kind, start, end, parts in places:
            block, base, size = shared, 0, end - start
            if size > 0 and copied(key, size):
                copy, base = self._copies.take(size), start
                np.copyto(copy[:size], np.frombuffer(self._map, np.uint8, size, start))
                block = Block(copy)
            found = {}
            for name, dtype, shape, turned, offset, raw in parts:
                if offset is not None:
                    tensor = block.tensor(dtype, shape, offset - base)
                elif raw:
                    tensor = Block(bytearray(raw)).tensor(dtype, shape, 0)
                else:
                    tensor = torch.empty(shape, dtype=dtype)
                found[name] = tensor.permute(0, 3, 1, 2) if turned else tensor
            values[key] = assembled(kind, found)
        return values

    def lend(self, back: Callable[[], object]) -> npt.NDArray[np.uint8]:
        """Return all bytes; ``back`` is called once no array and no tensor uses them any more."""
        array = np.frombuffer(self._map, dtype=np.uint8)
        weakref.finalize(array, back).atexit = False
        return array

    def _holds(self, tensor: Tensor) -> bool:
        return tensor.numel() > 0 and 0 <= tensor.data_ptr() - self._start < self._size


class Copies:
    """Memory for copies of what clients sent, reused once no tensor uses it any more.

    Large copies on the heap would leave gaps between longer-lived values, and memory use would grow
    with the clients of a round.
    """

    LARGE = 1 << 20
    """Bytes from which a copy counts as large; large memory is allocated in multiples of this."""

    def __init__(self) -> None:
        self._free: dict[int, list[mmap.mmap]] = {}

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return at least ``size`` bytes, which are in use as long as the array or a view lives."""
        if size < self.LARGE:
            return torch.empty(_aligned(size), dtype=torch.uint8).numpy()
        whole = math.ceil(size / self.LARGE) * self.LARGE
        free = self._free.setdefault(whole, [])
        memory = free.pop() if free else mmap.mmap(-1, whole, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        array = np.frombuffer(memory, dtype=np.uint8)
        weakref.finalize(array, free.append, memory).atexit = False
        return array
