"""The layers of a config: values from different sources, converted to one form and merged.

A layer is a `Document`: data together with where its values came from, so that errors can name the
place. Where two layers give the same key, the later one wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError, did_you_mean
from ..plugins.registry import Registry
from . import yamlfile
from .model import KEYS
from .yamlfile import Document, KeyPath

CHOICES = {"data": "dataset", "model": "model", "executor": "executor"}
"""Config key -> the kind of thing that it names."""

INSTRUCTIONS = ("recipe", "card", "without")
"""Keys of a YAML file about the layers below it; a resolved config has none of them."""


class LeftOut(NamedTuple):
    """A plugin of the layers below that a layer leaves out.

    Args:
        name: the plugin.
        by: the place that says so: ``mine.yaml:4``, ``--without crop``.
        where: how an error about it begins.
    """

    name: str
    by: str
    where: str


@dataclass(frozen=True)
class Layer:
    """One layer of a config.

    Args:
        documents: its values; where two of them give the same key, the later one wins.
        without: the plugins of the layers below that it leaves out.
        kept: whether its plugins run in the order in which it names them; see `order`.
        lenient: whether ``without`` may name plugins that the layers below do not have.
        written: how the user writes ``without`` in this layer, with {} for a plugin.
    """

    documents: tuple[Document, ...]
    without: tuple[LeftOut, ...] = ()
    kept: bool = False
    lenient: bool = False
    written: str = "without: [{}]"


def from_file(file: Document) -> Layer:
    """Return the layer of a YAML file.

    Raises:
        ConfigError: for an unknown key, or a ``without`` that is not a list of names.
    """
    data = {key: value for key, value in file.data.items() if key not in INSTRUCTIONS}
    values = Document(data, file.source, file.lines)
    _refuse_unknown_keys(values)
    names = file.data.get("without", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{file.where(('without',))}: give a list of plugins, for example `without: [crop]`, "
            f"got {names!r}"
        )
    places = [file.place(("without", str(i))) for i in range(len(names))]
    left = [LeftOut(n, at, f"{at}: without: {n}") for n, at in zip(names, places, strict=True)]
    return Layer((values,), tuple(left), kept=True)


def from_flags(
    registry: Registry,
    sets: Sequence[str],
    flags: Mapping[str, Any],
    plus: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Layer:
    """Return the layer of the flags: choices, added plugins, ``--set``, other flags.

    Flags that choose a data set, model or executor come before ``--set``, which may set its
    options.

    Raises:
        ConfigError: for an unknown key or plugin, or a malformed ``--set``.
    """
    chosen = {key: value for key, value in flags.items() if value is not None}
    named = Document({k: v for k, v in chosen.items() if k in CHOICES}, "command line")
    plain = Document({k: v for k, v in chosen.items() if k not in CHOICES}, "command line")
    _refuse_unknown_keys(plain)
    added = [_plus_layer(registry, name) for name in plus]
    left = [LeftOut(name, f"--without {name}", f"--without {name}") for name in without]
    documents = (named, *added, *(_set_layer(text) for text in sets), plain)
    return Layer(documents, tuple(left), written="--without {}")


def _refuse_unknown_keys(layer: Document) -> None:
    for key in layer.data:
        if key not in KEYS:
            near = did_you_mean(key, (*KEYS, *INSTRUCTIONS))
            raise ConfigError(f"{layer.where((key,))}: unknown key{near}")


def set_keys_of(text: str) -> set[str]:
    """Return the keys that a ``KEY=VALUE`` sets: ``seed``, ``sgd.lr``, however they are written."""
    found: set[str] = set()
    for key, value in _set_layer(text).data.items():
        plugins = value if key == "plugins" and isinstance(value, Mapping) else {key: value}
        for name, given in plugins.items():
            nested = isinstance(given, Mapping) and given
            found |= {f"{name}.{option}" for option in given} if nested else {str(name)}
    return found


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


def add(into: dict[str, Any], layer: Document, sources: dict[KeyPath, Document]) -> list[str]:
    """Merge a document into ``into`` and record in ``sources`` which keys it set.

    Returns:
        the plugins that the document names.

    Raises:
        ConfigError: for a ``--set`` whose first part is neither a key nor a plugin of the run, and
            for ``plugins`` that are not a mapping.
    """
    data = _expand(layer.data, into.get("plugins", {}), layer)
    _merge(into, data, (), layer, sources)
    return list(data.get("plugins", {}))


def _expand(data: Mapping[str, Any], plugins: Mapping[str, Any], layer: Document) -> dict[str, Any]:
    """Turn plain names into choices, and ``--set plugin.option`` into a nested key."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key in CHOICES and isinstance(value, str):
            result[key] = {"name": value}
        elif key == "plugins" and not isinstance(value, dict):  # all other layers build on it
            raise ConfigError(f"{layer.where((key,))}: input should be an object, got {value!r}")
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
            continue
        forget(sources, here)
        sources[here] = layer
        if isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value, here, layer, sources)
        else:
            into[key] = value


def forget(sources: dict[KeyPath, Document], path: KeyPath) -> None:
    """Remove a key and all that it holds from what `add` recorded."""
    for known in [known for known in sources if known[: len(path)] == path]:
        del sources[known]
