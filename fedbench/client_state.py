"""What a client keeps from one turn to the next: the mapping that hooks get as ``ctx.state``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from .errors import PluginError
from .values import Empty, Encoded, PerClass, Value, copy_to, seal
from .watching import UNWATCHED, Watch


class ClientState(MutableMapping[str, Value]):
    """A client's values by key, each sealed when it is assigned.

    ``state[key] = model.state_dict()`` keeps the weights of that moment: a detached copy on the
    CPU, which further training does not change. What is read belongs to the client: writing into
    a tensor that was read changes what is kept from this turn, and nothing else.

    Args:
        kept: what the client kept from its last turn; it is never changed.
        where: the place for the watch: ``round 3, client 7``.
        empty: allocates the memory of the copies; by default torch does.
        watch: is told what is assigned, and times the copies.

    Raises:
        PluginError: on assignment, for a key that is not text, or a value that is not a tensor, a
            `PerClass`, or tensors by name.
    """

    def __init__(
        self,
        kept: Mapping[str, Value],
        where: str = "",
        empty: Empty | None = None,
        watch: Watch = UNWATCHED,
    ) -> None:
        self._sealed = dict(kept.items())  # nobody else writes to these
        self._read: dict[str, Value] = {}  # their copies that hooks hold and may write to
        self._where, self._empty, self._watch = where, empty, watch

    def __getitem__(self, key: str) -> Value:
        if key not in self._read:
            value = copy_to(self._sealed[key], torch.device("cpu"))
            if not isinstance(value, (Tensor, PerClass, Encoded)):
                value = _Tensors(_name(key), value)
            self._read[key] = value
        return self._read[key]

    def __setitem__(self, key: str, value: Value) -> None:
        if not isinstance(key, str):
            raise PluginError(f"a key of the client state must be text, got {key!r}")
        self._watch.keep(self._where, key, value)
        self._sealed[key] = self._seal(key, value)
        self._read.pop(key, None)

    def __delitem__(self, key: str) -> None:
        del self._sealed[key]
        self._read.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._sealed

    def __iter__(self) -> Iterator[str]:
        return iter(self._sealed)

    def __len__(self) -> int:
        return len(self._sealed)

    def __or__(self, other: Mapping[str, Value]) -> dict[str, Value]:
        return {**self, **other}

    def __ior__(self, other: Mapping[str, Value]) -> ClientState:
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the entry ``key``; if there is none, assign ``default`` first."""
        if key not in self:
            self[key] = default
        return self[key]

    def replace(self, values: Mapping[str, Value]) -> None:
        """Keep ``values`` and nothing else."""
        new = dict(values)
        self.clear()
        self.update(new)

    def sealed(self) -> dict[str, Value]:
        """Return what the client keeps, sharing no memory with anything that a hook holds.

        A value that no hook has read was copied when it was assigned and is not copied again.
        """
        return {
            key: self._seal(key, self._read[key]) if key in self._read else value
            for key, value in self._sealed.items()
        }

    def _seal(self, key: str, value: Value) -> Value:
        with self._watch.phase("uploads"):
            return seal(value, _name(key), self._empty)


class _Tensors(dict[str, Tensor]):
    """Tensors by name that were read from the state; one that is assigned is sealed, too."""

    _what = "client state"

    def __init__(self, what: str, values: Mapping[str, Tensor]) -> None:
        super().__init__(values)
        self._what = what

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        super().__setitem__(name, seal({name: tensor}, self._what)[name])  # type: ignore[index]

    def __ior__(self, other: Any) -> _Tensors:  # type: ignore[override,misc]
        self.update(other)
        return self

    def update(self, *values: Any, **named: Any) -> None:
        """Assign each of the values."""
        for name, tensor in dict(*values, **named).items():
            self[name] = tensor

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the tensor ``name``; if there is none, assign ``default`` first."""
        if name not in self:
            self[name] = default
        return self[name]


def _name(key: str) -> str:
    return f"client state {key!r}"
