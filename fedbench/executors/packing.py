"""Tensors, data and partition as Ray moves them through its object store: arrays of bytes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..types import Dataset, Examples
from ..values import raw_bytes

Packed = Mapping[str, tuple[str, list[int], Any]]
"""Tensors as Ray moves them without a copy: name -> dtype, shape, bytes as a numpy array."""


def pack(flat: Mapping[str, Tensor]) -> Packed:
    """Return tensors as arrays that share their memory."""
    packed = {}
    for name, tensor in flat.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        packed[name] = (kind, list(tensor.shape), raw_bytes(tensor))
    return packed


def unpack(packed: Packed, copy: bool) -> dict[str, Tensor]:
    """Return the tensors; without ``copy`` they are in the object store and must only be read."""
    flat = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        for name, (kind, shape, raw) in packed.items():
            dtype = getattr(torch, kind)
            if not raw.size:
                flat[name] = torch.empty(shape, dtype=dtype)
                continue
            flat[name] = torch.from_numpy(raw.copy() if copy else raw).view(dtype).reshape(shape)
    return flat


def pack_data(data: Dataset, parts: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return a data set and its partition, packed; see `unpack_data`."""
    flat = {
        f"{split} {name}": tensor
        for split, examples in (
            ("train", data.train),
            ("test", data.test),
            *((f"extra {name}", examples) for name, examples in data.extra.items()),
        )
        for name, tensor in vars(examples).items()
        if tensor is not None
    }
    flat["parts"] = torch.cat(list(parts))
    sizes = [len(part) for part in parts]
    return (data.classes, data.domains, data.clients, tuple(data.extra)), sizes, pack(flat)


def unpack_data(packed: tuple[Any, ...]) -> tuple[Dataset, list[Tensor]]:
    """Return the data set and the partition that `pack_data` packed, to be read only."""
    (classes, domains, clients, extra), sizes, tensors = packed
    flat = unpack(tensors, copy=False)

    def examples(split: str) -> Examples:
        return Examples(
            **{name: flat[f"{split} {name}"] for name in ("inputs", "labels", "domains")},
            clients=flat.get(f"{split} clients"),
        )

    more = {name: examples(f"extra {name}") for name in extra}
    data = Dataset(classes, domains, examples("train"), examples("test"), clients, more)
    return data, list(flat["parts"].split(sizes))
