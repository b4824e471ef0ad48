"""Codecs: plugins that change the form in which clients' uploads travel, to save bytes.

A codec says how one vector becomes a few tensors and back; `Codec` finds the vectors in the uploads
and puts them back on the server. Half the bytes in a dozen lines::

    @dataclass(frozen=True, eq=False)
    class Half(Codec):
        \"\"\"Send 16-bit floats.\"\"\"

        def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor]:
            return {"half": values.half()}

        def decode(self, parts: Mapping[str, Tensor], slot: Slot) -> Tensor:
            return parts["half"].float()

Codecs compose: one that comes after another in a run encodes the tensors that the first one made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor

from .errors import ConfigError, PluginError
from .hookspecs import hookimpl
from .types import ClientResult, Encoded, Payload, PerClass, Value, assembled, kind_of, tensors

if TYPE_CHECKING:
    from .context import ClientContext


@dataclass(frozen=True)
class Slot:
    """One tensor of an upload, as both sides know it.

    Args:
        key: the upload's key.
        name: the tensor's name in it; empty for an upload that is one tensor.
        shape: its shape.
        dtype: its type.
        update: whether its difference from what the server sent is encoded, not itself.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    update: bool

    @property
    def label(self) -> str:
        """Its name in the whole run, for random streams and keys of the client's state."""
        return f"{self.key}/{self.name}" if self.name else self.key


EXACT = "codec.exact"
"""Key of a client's scratch: uploads that have to arrive as they are -> why."""


@dataclass(frozen=True, eq=False)
class Codec:
    """A plugin that encodes floating-point tensors of uploads; subclasses say how.

    Where the server sent a tensor of the same key, name and shape, such as the weights, the vector
    to encode is the update, the difference from it; else it is the tensor itself. These travel as
    they are: integers (labels and counts of a `PerClass`), buffers of the model, whose values may
    be restricted (a variance is not negative), and whatever `encode` returns ``None`` for.

    Raises:
        ConfigError: in round 1, for a key that no plugin uploads; for one that must not change.
    """

    keys: Annotated[
        tuple[str, ...], Field(min_length=1, description="keys of the uploads to encode")
    ] = ("weights",)

    def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor] | None:
        """Return the tensors by name that travel instead of ``values``, (n,), n >= 1, on the CPU.

        ``None`` leaves the tensor as it is. Names are not empty and have no slash.
        """
        raise NotImplementedError

    def decode(self, parts: Mapping[str, Tensor], slot: Slot) -> Tensor:
        """Return the vector (n,) for what `encode` returned."""
        raise NotImplementedError

    def encoded(
        self, ctx: ClientContext, values: Tensor, slot: Slot
    ) -> Mapping[str, Tensor] | None:
        """Call `encode`; a hook for subclasses that do something for all codecs of a kind."""
        return self.encode(ctx, values, slot)

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        exact = ctx.scratch.get(EXACT, {})
        if refused := next((key for key in self.keys if key in exact), None):
            raise ConfigError(
                f"{type(self).__name__.lower()}.keys: {refused!r} cannot be encoded: "
                f"{exact[refused]}"
            )
        missing = [key for key in self.keys if key not in uploads]
        if missing and ctx.round == 1:
            raise ConfigError(self._missing(missing[0], uploads))
        changed = {k: _encoded(self, ctx, k, uploads[k]) for k in self.keys if k in uploads}
        return {**uploads, **changed}

    @hookimpl
    def receive_uploads(self, results: Iterator[ClientResult]) -> Iterator[ClientResult]:
        for result in results:
            changed = {
                key: _decoded(self, key, value, result.sent)
                for key, value in result.uploads.items()
            }
            yield result.with_uploads(changed)

    def _missing(self, key: str, uploads: Payload) -> str:
        near = get_close_matches(key, uploads, n=1)
        return (
            f"{type(self).__name__.lower()}.keys: no plugin uploads {key!r}; "
            f"uploaded are {', '.join(map(repr, sorted(uploads))) or 'no values'}"
            + (f" (did you mean {near[0]!r}?)" if near else "")
        )


@dataclass(frozen=True, eq=False)
class FeedbackCodec(Codec):
    """A codec with error feedback: what an update loses is added to the client's next update.

    What was lost is client state. A client that misses rounds keeps it. Values that are not updates
    are complete every time, so nothing is added to them.
    """

    feedback: Annotated[
        bool, Field(description="add what an update lost to the client's next one (error feedback)")
    ] = True

    def encoded(
        self, ctx: ClientContext, values: Tensor, slot: Slot
    ) -> Mapping[str, Tensor] | None:
        """Call `encode` with the residual added, and keep the new residual."""
        if not (self.feedback and slot.update):
            return self.encode(ctx, values, slot)
        key = f"{type(self).__name__.lower()}.residual/{slot.label}"
        residual = ctx.state.get(key)
        wanted = values + residual if isinstance(residual, Tensor) else values
        parts = self.encode(ctx, wanted, slot)
        if parts is None:
            return None
        ctx.state[key] = wanted - self.decode(parts, slot)
        return parts


def _encoded(codec: Codec, ctx: ClientContext, key: str, value: Value) -> Value:
    """Return an upload as an `Encoded` one, or as it is if all of it travels as it is."""
    base, whole = _base(ctx.sent, key, value), _whole(ctx, value)
    parts: dict[str, Tensor] = {}
    form: list[tuple[str, list[int], str, bool]] = []
    for name, tensor in tensors(value):
        sent = base.get(name)
        update = sent is not None and sent.shape == tensor.shape
        made: Mapping[str, Tensor] | None = None
        if tensor.is_floating_point() and tensor.numel() and name not in whole:
            change = tensor - sent.to(tensor) if update and sent is not None else tensor
            slot = Slot(key, name, tuple(tensor.shape), tensor.dtype, update)
            made = codec.encoded(ctx, change.reshape(-1), slot)
        form.append((name, list(tensor.shape), str(tensor.dtype).removeprefix("torch."), update))
        wrong = [part for part in made or () if not part or "/" in part]
        if wrong:
            raise PluginError(f"{_mark(codec)}: a part cannot have the name {wrong[0]!r}")
        parts |= {f"{name}/{p}": t for p, t in ({"": tensor} if made is None else made).items()}
    if all(part.endswith("/") for part in parts):
        return value
    return Encoded(parts, json.dumps([_mark(codec), kind_of(key, value), form]))


def _decoded(codec: Codec, key: str, value: Value, sent: Payload) -> Value:
    """Return the upload that `_encoded` encoded; any other value as it is."""
    if not isinstance(value, Encoded) or not value.form.startswith(f'["{_mark(codec)}", '):
        return value
    _, kind, form = json.loads(value.form)
    known = sent.get(key)
    base = dict(tensors(known)) if isinstance(known, Tensor | Mapping) else {}
    groups: dict[str, dict[str, Tensor]] = {}
    for label, tensor in value.parts.items():
        name, _, part = label.rpartition("/")
        groups.setdefault(name, {})[part] = tensor
    found: dict[str, Tensor] = {}
    for name, shape, dtype, update in form:
        parts = groups[name]
        if "" in parts:
            found[name] = parts[""]
            continue
        slot = Slot(key, name, tuple(shape), getattr(torch, dtype), update)
        change = codec.decode(parts, slot).to(slot.dtype).reshape(slot.shape)
        found[name] = base[name].to(change) + change if update else change
    return assembled(kind, found)


def _base(sent: Payload, key: str, value: Value) -> Mapping[str, Tensor]:
    """Return the tensors from which those of an upload are differences; they may be on a device."""
    known = sent.get(key)
    # Rows per class have no fixed places, and what is encoded already is a difference.
    without = known is None or isinstance(known, PerClass) or isinstance(value, PerClass | Encoded)
    return {} if without else dict(tensors(known))


def _whole(ctx: ClientContext, value: Value) -> set[str]:
    """Return the tensors that travel as they are: buffers, and what an earlier codec left alone."""
    if isinstance(value, Encoded):
        return {name for name in value.parts if name.endswith("/")}
    buffers = ctx.model.named_buffers() if isinstance(value, Mapping) else ()
    return {name for name, _ in buffers}


def _mark(codec: Codec) -> str:
    """Return what tells this codec's values from those of others."""
    return f"{type(codec).__module__}.{type(codec).__qualname__}"
