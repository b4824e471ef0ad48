"""The layers of a config: values from different sources, converted to one form and merged.

A layer is a `Document`: data together with where its values came from, so that errors can name the
place. Where two layers give the same key, the later one wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..plugins.registry import Registry
from . import yamlfile
from .model import KEYS
from .yamlfile import Document, KeyPath

CHOICES = {"data": "dataset", "model": "model", "executor": "executor"}
"""Config key -> the kind of thing that it names."""

SHORT = ("recipe", "card")
"""Keys of a YAML file that each stand for a whole layer; a resolved config has neither."""


def given(
    registry: Registry,
    file: Document | None,
    plus: Sequence[str],
    sets: Sequence[str],
    flags: Mapping[str, Any],
) -> list[Document]:
    """Return the user's layers: the file, choices by flag, added plugins, ``--set``, other flags.

    Flags that choose a data set, model or executor come before ``--set``, which may set its
    options.

    Raises:
        ConfigError: for an unknown key or plugin, or a malformed ``--set``.
    """
    chosen = {key: value for key, value in flags.items() if value is not None}
    named = Document({k: v for k, v in chosen.items() if k in CHOICES}, "command line")
    plain = Document({k: v for k, v in chosen.items() if k not in CHOICES}, "command line")
    whole = [_without_short(file)] if file else []
    for layer in (*whole, named, plain):
        _refuse_unknown_keys(layer)
    added = [_plus_layer(registry, name) for name in plus]
    return [*whole, named, *added, *(_set_layer(text) for text in sets), plain]


def _refuse_unknown_keys(layer: Document) -> None:
    for key in layer.data:
        if key not in KEYS:
            near = did_you_mean(key, (*KEYS, *SHORT))
            raise ConfigError(f"{layer.where((key,))}: unknown key{near}")


def _without_short(file: Document) -> Document:
    data = {key: value for key, value in file.data.items() if key not in SHORT}
    return Document(data, file.source, file.lines)


def _set_layer(text: str) -> Document:
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: write plugin.option=value, for example sgd.lr=0.01")
    try:
        data: Any = yamlfile.scalar(value)
    except ConfigError as error:
        why = str(error).removeprefix("--set:1:").removeprefix(" value:")
        raise ConfigError(f"--set {text}:{why}") from error
    for part in reversed(path):
        data = {part: data}
    return Document(data, f"--set {text}")


def _plus_layer(registry: Registry, name: str) -> Document:
    try:
        registry.get("plugin", name)
    except ConfigError as error:
        raise ConfigError(f"--with {name}: {error}") from error
    return Document({"plugins": {name: {}}}, f"--with {name}")


def add(into: dict[str, Any], layer: Document, sources: dict[KeyPath, Document]) -> None:
    """Merge a layer into ``into`` and record in ``sources`` which keys it set.

    Raises:
        ConfigError: for a ``--set`` whose first part is neither a key nor a plugin of the run.
    """
    _merge(into, _expand(layer.data, into.get("plugins", {}), layer), (), layer, sources)


def _expand(data: Mapping[str, Any], plugins: Mapping[str, Any], layer: Document) -> dict[str, Any]:
    """Turn plain names into choices, and ``--set plugin.option`` into a nested key."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key in CHOICES and isinstance(value, str):
            result[key] = {"name": value}
        elif key in ("plugins", "metrics") and isinstance(value, dict):
            result[key] = {k: {} if v is None else v for k, v in value.items()}
        elif key in KEYS:
            result[key] = value
        elif key in plugins:
            result["plugins"] = {key: value}
        else:
            known = (*plugins, *(k for k in KEYS if k not in ("plugins", "origin")))
            raise ConfigError(
                f"{layer.source}: {key!r} is not a plugin of this run{did_you_mean(key, known)}"
            )
    return result


def _merge(
    into: dict[str, Any],
    data: Mapping[str, Any],
    path: KeyPath,
    layer: Document,
    sources: dict[KeyPath, Document],
) -> None:
    for key, value in data.items():
        here = (*path, key)
        sources[here] = layer
        old = into.get(key)
        renamed = (
            isinstance(old, dict)
            and isinstance(value, dict)
            and path == ()
            and key in CHOICES
            and value.get("name", old.get("name")) != old.get("name")
        )
        if isinstance(value, dict) and isinstance(old, dict) and not renamed:
            _merge(old, value, here, layer, sources)
        elif isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value, here, layer, sources)
        else:
            into[key] = value


def replace(merged: dict[str, Any], replaced: Sequence[str]) -> None:
    """Remove the plugins that a recipe replaces; those that the card does not have are ignored."""
    for name in replaced:
        merged.get("plugins", {}).pop(name, None)


def drop(merged: dict[str, Any], without: Sequence[str]) -> None:
    """Remove the plugins that ``without`` names.

    Raises:
        ConfigError: for one that the run does not have, naming the nearest.
    """
    plugins = merged.get("plugins", {})
    for name in without:
        if name not in plugins:
            raise ConfigError(
                f"--without {name}: it is not a plugin of this run{did_you_mean(name, plugins)}"
            )
    for name in without:
        plugins.pop(name, None)
