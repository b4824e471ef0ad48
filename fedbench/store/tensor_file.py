"""Named tensors as bytes that keep their order.

The safetensors format does not keep the order of the names, and its reader returns them in another
order each time. Code that iterates over the weights or states of a resumed run must see them in the
same order as in an uninterrupted run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor

ORDER = "order"
"""The metadata key under which a file keeps the names, as a JSON list."""


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a safetensors file that also keeps the order of the names.

    Tensors may share memory, as the state and what was sent of it do.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.contiguous()
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return save(plain, metadata={ORDER: json.dumps(list(plain))})


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """Return the tensors in a file, in the order that `to_bytes` kept, or else its header's order.

    Raises:
        SafetensorError, ValueError, KeyError: for a damaged file.
    """
    found = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.pop("__metadata__", {})
    names = json.loads(metadata[ORDER]) if ORDER in metadata else list(header)
    if sorted(names) != sorted(found):
        raise ValueError("the kept order does not name the tensors of the file")
    return {name: found[name] for name in names}
