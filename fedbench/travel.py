"""Ways out and in: what plugins change of what travels, in order, and undo in reverse order.

Values travel from the server to a client and back. On either way, plugins change them one after the
other (``send_broadcast``, ``send_uploads``) and undo that on the other side, last change first
(``receive_broadcast``, ``receive_uploads``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .errors import NonFiniteError, PluginError
from .types import Empty, Encoded, Payload, Received, ServerState, Value, seal, tensors
from .values import all_finite, still_encoded

if TYPE_CHECKING:
    from .context import ServerContext
    from .plugins.hooks import RunPlugins

Calls = Iterable[tuple[str, Callable[..., Any]]]
"""(plugin's name, function that calls its hook), in the order of the calls."""


def changed(found: object, hook: str, plugin: str) -> dict[str, Value]:
    """Check what a hook returned; encoded values get the plugin's name.

    Args:
        found: what it returned.
        hook: the hook's name.
        plugin: the plugin's name.

    Raises:
        PluginError: when it is not a mapping of values by key.
    """
    if not isinstance(found, Mapping):
        raise PluginError(
            f"plugin {plugin!r}: {hook} returned {type(found).__name__}; return all values by key, "
            "also those that it leaves as they are"
        )
    named = {}
    for key, value in found.items():
        if not isinstance(key, str):
            raise PluginError(f"plugin {plugin!r}: a key of {hook} must be text, got {key!r}")
        if isinstance(value, Encoded) and not value.plugin:
            value = replace(value, plugin=plugin)
        named[key] = value
    return named


def broadcast(plugins: RunPlugins, ctx: ServerContext, state: ServerState) -> dict[str, Value]:
    """Return what plugins broadcast, sealed; what the server keeps anyway is not copied again."""
    kept = {id(t) for value in (state.weights, *state.entries.values()) for _, t in tensors(value)}
    found = plugins.collect("broadcast", ctx=ctx, state=state)
    return {key: seal(value, f"broadcast {key!r}", sealed=kept) for key, value in found.items()}


def outgoing(
    calls: Calls, payload: Mapping[str, Value], **arguments: Any
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Let plugins change a broadcast.

    Args:
        calls: their ``send_broadcast``.
        payload: what plugins broadcast, sealed.
        arguments: of the hook, besides ``payload``.

    Returns:
        what travels, sealed, and the same with each value in the last form that was not encoded.
    """
    travels = dict(payload)
    plain = dict(payload)
    for plugin, call in calls:
        found = call(payload=Payload(travels, "the broadcast"), **arguments)
        found = changed(found, "send_broadcast", plugin)
        travels = {
            key: value if value is travels.get(key) else seal(value, f"broadcast {key!r}")
            for key, value in found.items()
        }
        plain = {
            key: plain.get(key, value) if isinstance(value, Encoded) else value
            for key, value in travels.items()
        }
    return travels, plain


def incoming(calls: Calls, payload: Received, **arguments: Any) -> tuple[Received, Payload]:
    """Let plugins change what a client received.

    Args:
        calls: their ``receive_broadcast``.
        payload: what travelled.
        arguments: of the hook, besides ``payload``.

    Returns:
        the client's payload, and what the server sent: each value in the first form that is not
        encoded.

    Raises:
        PluginError: when a value is still encoded at the end.
    """
    sent: dict[str, Value] = {}
    known = list(payload)
    original = payload
    for plugin, call in calls:
        sent |= _decoded(payload, known, sent)
        found = changed(call(payload=payload, **arguments), "receive_broadcast", plugin)
        payload = Received(found, payload.device)
    if payload is original:
        check_decoded(payload.raw(), "the broadcast")
        return payload, payload
    sent |= _decoded(payload, known, sent)
    check_decoded(payload.raw(), "the broadcast")
    return payload, Payload(sent, "the broadcast")


def _decoded(
    payload: Received, known: Iterable[str], have: Mapping[str, Value]
) -> dict[str, Value]:
    """Return the values that travelled, are decoded now and are not in ``have``."""
    raw = payload.raw()
    return {
        key: payload[key]
        for key in known
        if key in raw and key not in have and not isinstance(raw[key], Encoded)
    }


def uploaded(
    calls: Calls,
    uploads: Mapping[str, Value],
    where: str,
    empty: Empty | None = None,
    **arguments: Any,
) -> dict[str, Value]:
    """Let plugins change a client's uploads; return what travels, sealed.

    Args:
        calls: their ``send_uploads``.
        uploads: what plugins uploaded, sealed.
        where: whose turn it is, for the error.
        empty: allocates the memory of changed values.
        arguments: of the hook, besides ``uploads``.

    Raises:
        NonFiniteError: for a tensor that is not finite, as uploaded or as it would travel.
    """
    travels = dict(uploads)
    _check_finite(uploads, where)
    for plugin, call in calls:
        found = call(uploads=Payload(travels, "the uploads"), **arguments)
        found = changed(found, "send_uploads", plugin)
        new = {
            key: seal(value, f"upload {key!r}", empty)
            for key, value in found.items()
            if value is not travels.get(key)
        }
        # After each plugin, because the form in which a value travels can hide that it is NaN.
        _check_finite(new, where)
        travels = {key: new.get(key, value) for key, value in found.items()}
    return travels


def _check_finite(uploads: Mapping[str, Value], where: str) -> None:
    for key, value in uploads.items():
        for name, tensor in tensors(value):
            if not all_finite(tensor):
                what = f"upload {key!r}" + (f", tensor {name!r}," if name else "")
                raise NonFiniteError(f"{what} is not finite in {where}")


def check_decoded(values: Mapping[str, Value], where: str) -> None:
    """Raise a `PluginError` for a value that is still encoded."""
    for key, value in values.items():
        if isinstance(value, Encoded):
            raise still_encoded(key, value, where)
