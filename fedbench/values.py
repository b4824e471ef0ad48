"""Values that server and clients exchange or keep: their types, sealing, sizes and digests.

A value is a tensor, rows per class (`PerClass`), or tensors by name. Whatever crosses the boundary
between a client and the server is first sealed (`seal`): detached and copied to the CPU. A live
reference can therefore never leak from one side to the other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from .errors import PluginError, did_you_mean

Weights: TypeAlias = Mapping[str, Tensor]
"""A model's parameters and buffers by name, as in ``state_dict()``."""


@dataclass(frozen=True, eq=False)
class PerClass:
    """Rows that each belong to a class: prototypes, class gradients, class means.

    A class may have no row, one, or several (FPL's cluster prototypes).

    Args:
        labels: (n,) int64, the class of each row.
        values: (n, ...) floating-point, the rows.
        counts: (n,) int64, how many examples each row is made from.

    Raises:
        ValueError: when one of the three is not a tensor of that type, or when their numbers of
            rows differ.
    """

    labels: Tensor
    values: Tensor
    counts: Tensor

    def __post_init__(self) -> None:
        _check_type("labels", self.labels)
        _check_type("values", self.values)
        _check_type("counts", self.counts)
        rows = self.values.shape[:1]
        if len(rows) != 1 or self.labels.shape != rows or self.counts.shape != rows:
            raise ValueError(
                f"PerClass needs labels (n,), values (n, ...), counts (n,) with the same n; got "
                f"{tuple(self.labels.shape)}, {tuple(self.values.shape)}, "
                f"{tuple(self.counts.shape)}"
            )

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @staticmethod
    def means(values: Tensor, labels: Tensor) -> PerClass:
        """Return the mean of ``values`` (N, ...) for each class present in ``labels`` (N,)."""
        present, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        sums = values.new_zeros((len(present), *values.shape[1:])).index_add(0, index, values)
        shape = (-1,) + (1,) * (values.ndim - 1)
        return PerClass(present, sums / counts.reshape(shape), counts)

    @staticmethod
    def concat(parts: Iterable[PerClass]) -> PerClass:
        """Return all rows of ``parts``, in order; there must be at least one part."""
        items = list(parts)
        return PerClass(
            torch.cat([p.labels for p in items]),
            torch.cat([p.values for p in items]),
            torch.cat([p.counts for p in items]),
        )

    def average(self, by_count: bool = False) -> PerClass:
        """Return one row per class: the mean of its rows, with ``by_count`` weighted by ``counts``.

        A row's count is the sum of the counts of its class.
        """
        labels, index = torch.unique(self.labels, return_inverse=True)
        shape = (-1,) + (1,) * (self.values.ndim - 1)
        one = self.counts if by_count else torch.ones_like(self.counts)
        weight = one.to(self.values.dtype)
        zeros = self.values.new_zeros
        total = zeros(len(labels)).index_add(0, index, weight)
        sums = zeros((len(labels), *self.values.shape[1:])).index_add(
            0, index, self.values * weight.reshape(shape)
        )
        counts = torch.zeros_like(labels).index_add(0, index, self.counts)
        return PerClass(labels, sums / total.reshape(shape), counts)


def _check_type(name: str, value: object) -> None:
    """Raise a ``ValueError`` when ``value`` cannot be that part of a `PerClass`."""
    if not isinstance(value, Tensor):
        raise ValueError(f"PerClass: {name} must be a tensor, got {type(value).__name__}")
    fits = value.is_floating_point() if name == "values" else value.dtype == torch.int64
    if not fits:
        expected, call = ("floating-point", "float") if name == "values" else ("int64", "long")
        given = str(value.dtype).removeprefix("torch.")
        raise ValueError(f"PerClass: {name} must be {expected}, got {given}; use {name}.{call}()")


@dataclass(frozen=True, eq=False)
class Encoded:
    """A value in the form in which it travels: compressed, quantised, encrypted.

    Whoever encodes a value on one side decodes it on the other; an encoded value that is used by
    anybody else is an error.

    Args:
        parts: the tensors that travel; only they count as bytes.
        form: text that decoding needs besides, such as names and shapes that both sides know.
        plugin: the plugin that encoded it; core fills it in.
    """

    parts: Mapping[str, Tensor]
    form: str = ""
    plugin: str = ""


Value: TypeAlias = Tensor | PerClass | Mapping[str, Tensor] | Encoded
"""What a broadcast, an upload or a state entry may be; nobody keeps an `Encoded` one."""


def tensors(value: Value) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) for each tensor of a value; a plain tensor's name is ``""``."""
    if isinstance(value, Tensor):
        yield "", value
    elif isinstance(value, PerClass):
        yield from (("labels", value.labels), ("values", value.values), ("counts", value.counts))
    else:
        yield from (value.parts if isinstance(value, Encoded) else value).items()


Empty: TypeAlias = Callable[[Tensor], Tensor]
"""A function that returns an uninitialised, contiguous CPU tensor like the one that it is given."""


def seal(
    value: Value, what: str = "value", empty: Empty | None = None, sealed: Container[int] = ()
) -> Value:
    """Return a detached copy of ``value`` on the CPU, sharing no memory with it.

    Args:
        value: a tensor, a `PerClass`, or tensors by name.
        what: how to name it in the error.
        empty: allocates the copies; by default torch does.
        sealed: ``id`` of each tensor that is sealed already; a value of only these is not copied.

    Raises:
        PluginError: when ``value`` is none of these, or an empty mapping.
    """
    if isinstance(value, Mapping):
        wrong = [k for k, v in value.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
        if wrong:
            raise PluginError(
                f"{what}: {wrong[0]!r} is not a tensor; a mapping holds tensors by name"
            )
        if not value:
            raise PluginError(f"{what} is an empty mapping; leave the key out instead")
    elif not isinstance(value, (Tensor, PerClass, Encoded)):
        raise PluginError(
            f"{what} is a {type(value).__name__}; "
            "it must be a tensor, a PerClass, or tensors by name"
        )
    if all(id(tensor) in sealed for _, tensor in tensors(value)):
        return dict(value) if isinstance(value, Mapping) else value
    return copy_to(value, torch.device("cpu"), empty)


def copy_to(value: Value, device: torch.device, empty: Empty | None = None) -> Value:
    """Return a detached, contiguous copy of ``value`` on ``device``, sharing no memory with it.

    ``empty`` allocates the copies when ``device`` is the CPU; by default torch does.
    """

    def copy(tensor: Tensor) -> Tensor:
        if empty is not None:
            return empty(tensor).copy_(tensor.detach())
        # A channels_last weight is made contiguous once, here, not by everyone who reads its bytes.
        if tensor.device == device:
            return tensor.detach().clone(memory_format=torch.contiguous_format)
        return tensor.detach().to(device, copy=True, memory_format=torch.contiguous_format)

    if isinstance(value, Tensor):
        return copy(value)
    copies = {name: copy(tensor) for name, tensor in tensors(value)}
    if isinstance(value, Encoded):
        return replace(value, parts=copies)
    return PerClass(**copies) if isinstance(value, PerClass) else copies


def flatten(values: Mapping[str, Value]) -> dict[str, Tensor]:
    """Return all tensors of ``values``, each under its own name; `unflatten` is the inverse.

    Raises:
        PluginError: for an empty mapping.
    """
    flat = {}
    for key, value in values.items():
        head = f"{kind_of(key, value)}|{len(key)}|{key}"
        flat.update({head + name: tensor for name, tensor in tensors(value)})
    return flat


def kind_of(key: str, value: Value) -> str:
    """Return the kind that `assembled` needs to rebuild ``value`` from its `tensors`.

    Raises:
        PluginError: for an empty mapping.
    """
    if isinstance(value, (Tensor, PerClass)):
        return type(value).__name__
    if isinstance(value, Encoded):
        return _ENCODED + quote(json.dumps([value.form, value.plugin]), safe="")
    if not value:
        raise PluginError(f"{key!r} is an empty mapping; leave the key out instead")
    return "mapping"


_ENCODED = "Encoded:"


def assembled(kind: str, parts: Mapping[str, Tensor]) -> Value:
    """Rebuild a value of the given kind (see `kind_of`) from its `tensors`."""
    if kind == "PerClass":
        return PerClass(**parts)
    if kind.startswith(_ENCODED):
        return Encoded(parts, *json.loads(unquote(kind.removeprefix(_ENCODED))))
    return parts if kind == "mapping" else parts[""]


def unflatten(flat: Mapping[str, Tensor]) -> dict[str, Value]:
    """Return the values that `flatten` turned into ``flat``.

    Raises:
        ValueError: for a name that `flatten` does not produce.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    kinds: dict[str, str] = {}
    for full, tensor in flat.items():
        kind, length, rest = full.split("|", 2)
        key, name = rest[: int(length)], rest[int(length) :]
        parts.setdefault(key, {})[name] = tensor
        kinds[key] = kind
    return {key: assembled(kinds[key], found) for key, found in parts.items()}


def nbytes(value: Value) -> int:
    """Return how many bytes ``value`` takes on the wire, without framing or compression."""
    return sum(t.numel() * t.element_size() for _, t in tensors(value))


def sha256(values: Mapping[str, Value]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of ``values``, sorted by name."""
    digest = hashlib.sha256()
    for key in sorted(values):
        for name, tensor in sorted(tensors(values[key]), key=lambda item: item[0]):
            digest.update(f"{key}/{name}/{tensor.dtype}/{tuple(tensor.shape)}\n".encode())
            digest.update(raw_bytes(tensor).data)
    return digest.hexdigest()


def raw_bytes(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """Return the bytes of a tensor's elements in order (n,), without a copy if they lie so."""
    flat = tensor.detach().cpu().contiguous()
    # A tensor of one element is contiguous whatever its stride, but only stride 1 can be viewed.
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy()


class Payload(Mapping[str, Value]):
    """Values by key.

    Raises:
        PluginError: when a key that is looked up is missing, naming the nearest key or all keys;
            in `tensor`, `per_class` and `weights` also when its value has a different type.
    """

    def __init__(self, values: Mapping[str, Value], where: str) -> None:
        self._values = dict(values)
        self._where = where

    def __getitem__(self, key: str) -> Value:
        if key in self._values:
            return self._values[key]
        raise PluginError(f"no {key!r} in {self._where}{did_you_mean(key, self._values)}")

    def get(self, key: str, default: Any = None) -> Any:
        """Return the entry ``key``, or ``default`` when there is none."""
        return self[key] if key in self._values else default

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def raw(self) -> Mapping[str, Value]:
        """Return the values as they were given, wherever they are; do not write to them."""
        return self._values

    def _typed(self, key: str, kind: type, name: str) -> Any:
        value = self[key]
        if isinstance(value, kind):
            return value
        if isinstance(value, Encoded):
            raise still_encoded(key, value, self._where)
        raise PluginError(f"{key!r} in {self._where} is a {type(value).__name__}, not {name}")

    def tensor(self, key: str) -> Tensor:
        """Return the entry ``key``, which must be a tensor."""
        value: Tensor = self._typed(key, Tensor, "a tensor")
        return value

    def per_class(self, key: str) -> PerClass:
        """Return the entry ``key``, which must be a `PerClass`."""
        value: PerClass = self._typed(key, PerClass, "a PerClass")
        return value

    def weights(self, key: str = "weights") -> Weights:
        """Return the entry ``key``, which must be tensors by name."""
        value: Weights = self._typed(key, Mapping, "tensors by name")
        return value


class Received(Payload):
    """A broadcast as one client sees it: each value copied to the client's device on first use.

    Because of the copy, a client that writes to a received tensor does not change what others get.
    """

    def __init__(self, values: Mapping[str, Value], device: torch.device) -> None:
        super().__init__(values, "the broadcast")
        self.device = device
        self._copies: dict[str, Value] = {}

    def __getitem__(self, key: str) -> Value:
        if key not in self._copies:
            self._copies[key] = copy_to(super().__getitem__(key), self.device)
        return self._copies[key]


def still_encoded(key: str, value: Encoded, where: str) -> PluginError:
    """Return the error for an encoded value that nobody decoded."""
    return PluginError(
        f"{key!r} in {where} is still encoded; plugin {value.plugin!r}, which encoded it, has to "
        "decode it"
    )


def all_finite(tensor: Tensor) -> bool:
    """Return whether no element is NaN or infinite; always true for types other than floats."""
    if not tensor.is_floating_point():
        return True
    # The sum is several times faster, but it may overflow, so only a finite sum settles it.
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())


CHECKSUM = "xxh3"
"""The name of what `checksum` computes, for files that hold checksums; it changes when they do."""


def checksum(tensor: Tensor) -> str:
    """Return 16 hexadecimal digits (XXH3) over the tensor's type, its shape and its bytes in order.

    Not cryptographic: it detects accidental changes and is about as fast as reading the memory.
    """
    return xxh3_64_hexdigest(raw_bytes(tensor).data, _head(tensor.dtype, tensor.shape))


def checksums(values: Mapping[str, Value]) -> dict[str, str]:
    """Return the checksum of every tensor by ``key/name``, or ``key`` for a plain tensor."""
    return {
        label(key, name): checksum(tensor)
        for key in sorted(values)
        for name, tensor in tensors(values[key])
    }


@lru_cache(10_000)
def _head(dtype: torch.dtype, shape: torch.Size) -> int:
    return xxh3_64_intdigest(f"{dtype}{tuple(shape)}".encode())


def label(key: str, name: str) -> str:
    """Return a tensor's name in messages and digests: ``key/name``, or ``key`` without a name."""
    return f"{key}/{name}" if name else key
