"""Tensors by name as bytes, in an order that lasts.

The safetensors format keeps names, not their order, and a reader gives them in another order each
time. What iterates over weights or states must see them as an undisturbed run does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor

ORDER = "order"
"""The key of the file's metadata with the names, as a JSON list."""


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file that also holds the order of the names."""
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata={ORDER: json.dumps(list(plain))})


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """Return what `to_bytes` wrote, in its order; a file without one in that of its header.

    Raises:
        SafetensorError, ValueError, KeyError: for a damaged file.
    """
    found = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.pop("__metadata__", {})
    names = json.loads(metadata[ORDER]) if ORDER in metadata else list(header)
    if sorted(names) != sorted(found):
        raise ValueError("the order names other tensors than there are")
    return {name: found[name] for name in names}
