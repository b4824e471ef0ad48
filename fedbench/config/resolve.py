"""From a method's name, a YAML file and flags to one frozen config that names everything.

Layers, the later one wins: built-in defaults, the card (the data set's protocol), the recipe (the
method), the YAML file, ``--set``, flags. The resolved config holds every value, so that running it
again needs no card or recipe and repeats the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import options
from ..errors import ConfigError, did_you_mean
from ..plugins.hooks import RunPlugins
from ..plugins.registry import Entry, Registry
from . import yamlfile
from .cards import load_card
from .model import TOP, TOP_KEYS, Accuracy, RunConfig
from .yamlfile import Document, KeyPath

__all__ = ["Accuracy", "RunConfig", "build", "build_plugins", "describe_changes", "load", "resolve"]

Options = Mapping[str, Any]

CHOICES = {"data": "dataset", "model": "model", "executor": "executor"}
"""Config key -> kind of thing it names."""


def resolve(
    registry: Registry,
    method: str | None = None,
    *,
    file: Document | None = None,
    card: str | None = None,
    sets: Sequence[str] = (),
    without: Sequence[str] = (),
    plus: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Resolve a config from its layers and check every name and option.

    Args:
        registry: what is installed.
        method: a recipe's name; may come from the file's ``recipe`` key instead.
        file: a parsed YAML file, whole or partial.
        card: a card's name; default the file's ``card`` key, else the data set's own card.
        sets: ``key=value`` with dotted keys: ``hpcl.temperature=0.1``, ``rounds=5``.
        without: plugins to leave out.
        plus: plugins to add with their defaults, last in order; ``sets`` may give them options.
        flags: top-level keys given as flags; ``data`` and ``model`` as plain names.

    Raises:
        ConfigError: naming the file, line and key, and the nearest right name.
    """
    given = dict(file.data) if file else {}
    recipe_name = method or given.pop("recipe", None)
    card_name = card or given.pop("card", None)
    given.pop("recipe", None)
    given.pop("card", None)
    chosen = {k: v for k, v in (flags or {}).items() if v is not None}
    user = [
        *([Document(given, file.source, file.lines)] if file else []),
        # Before --set, which may give an option of the model that a flag names.
        Document({k: v for k, v in chosen.items() if k in CHOICES}, "command line"),
        *(_plus_layer(registry, name) for name in plus),
        *(_set_layer(text) for text in sets),
        Document({k: v for k, v in chosen.items() if k not in CHOICES}, "command line"),
    ]
    for layer in user:
        for key in layer.data:
            if key not in TOP_KEYS and not layer.source.startswith("--set"):
                known = (*TOP_KEYS, "recipe", "card")
                raise ConfigError(f"{layer.where((key,))}: unknown key{did_you_mean(key, known)}")
    layers: list[Document] = []
    complete = (
        file is not None and recipe_name is None and {"data", "model", "plugins"} <= set(given)
    )
    origin: dict[str, str] = {}
    if not complete or card_name:
        if card_name:
            _named(registry, "card", str(card_name), None if card else file, "card")
        card_name = card_name or _default_card(registry, user)
        if card_name:
            found = load_card(registry, card_name)
            layers.append(Document(dict(found.config), f"card {card_name}"))
            origin |= {"card": card_name, "card_hash": found.hash}
    dropped: list[str] = []
    if recipe_name is not None:
        named_by = None if method else file
        recipe = _named(registry, "recipe", str(recipe_name), named_by, "recipe").value
        layers.append(
            Document(
                {"method": recipe_name, "plugins": {k: dict(v) for k, v in recipe.plugins.items()}},
                f"recipe {recipe_name}",
            )
        )
        origin |= {"recipe": str(recipe_name)}
        dropped = list(recipe.without)
    elif not complete:
        raise ConfigError(
            f"{file.source if file else 'command line'}: name a method (recipe: NAME) or give "
            "data, model and plugins in full; `fedbench config METHOD` prints a full file"
        )
    if not complete and not card_name and not {"data", "model"} <= set(given):
        raise ConfigError(
            "this data set has no card of its own; name one with --card, or give data, model and "
            "the card's plugins in YAML (`fedbench config METHOD` prints a full file to edit)"
        )
    merged: dict[str, Any] = {"executor": {"name": "pool"}}
    if origin:
        merged["origin"] = origin
    sources: dict[KeyPath, Document] = {}
    for layer in (*layers, *user):
        data = _expand(layer.data, merged.get("plugins", {}), layer)
        _merge(merged, data, (), layer, sources)
        if layer in layers:
            for name in dropped:
                merged.get("plugins", {}).pop(name, None)
    _drop(merged, without)
    _outermost_first(registry, merged)
    return _validate(registry, merged, sources)


def load(registry: Registry, path: str | Path, **more: Any) -> RunConfig:
    """Resolve the YAML file at ``path``; ``more`` as in `resolve`."""
    return resolve(registry, file=yamlfile.read(Path(path)), **more)


def build(registry: Registry, kind: str, choice: Options) -> Any:
    """Make the thing that a choice ``{name: ..., option: ...}`` names."""
    given = {k: v for k, v in choice.items() if k != "name"}
    cls = registry.get(kind, str(choice["name"])).value
    return options.build(cls, given, lambda path: ".".join((kind, *path)))


def build_plugins(registry: Registry, config: RunConfig) -> RunPlugins:
    """Make the run's plugins and check that they fit together."""
    return RunPlugins(
        [
            (name, options.build(registry.get("plugin", name).value, given, _dotted(name)))
            for name, given in config.plugins.items()
        ]
    )


def describe_changes(registry: Registry, config: RunConfig) -> list[str]:
    """Return how a config differs from its recipe on its card: ``-hpal``, ``rounds=5``.

    The seed, device and executor are no change. Empty when there is no recipe to compare with.
    """
    if "recipe" not in config.origin:
        return []
    for kind in ("recipe", "card"):
        if kind in config.origin and (kind, config.origin[kind]) not in registry.entries:
            return [f"unknown {kind}"]
    card = config.origin.get("card")
    base = resolve(registry, config.origin["recipe"], card=card).to_dict()
    mine = config.to_dict()
    changes = [f"-{name}" for name in base["plugins"] if name not in mine["plugins"]]
    changes += [f"+{name}" for name in mine["plugins"] if name not in base["plugins"]]
    shared = [n for n in mine["plugins"] if n in base["plugins"]]
    if shared != [n for n in base["plugins"] if n in mine["plugins"]]:
        changes.append("reordered")
    for name, given in mine["plugins"].items():
        before = base["plugins"].get(name) or _defaults(registry, name)
        changes += [
            f"{name}.{k}={v}" for k, v in given.items() if k not in before or v != before[k]
        ]
    for key in ("data", "model", "rounds", "precision", "failures", "accuracy", "metrics"):
        if mine[key] != base[key]:
            text = mine[key] if not isinstance(mine[key], dict) else json.dumps(mine[key])
            changes.append(f"{key}={text}")
    return changes


def _defaults(registry: Registry, name: str) -> dict[str, Any]:
    """Return a plugin's options without any given; `{}` when it has required ones."""
    try:
        return options.dump(options.build(registry.get("plugin", name).value, {}, _dotted(name)))
    except ConfigError:
        return {}


def _dotted(name: str) -> options.Where:
    return lambda path: ".".join((name, *path))


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


def _outermost_first(registry: Registry, merged: dict[str, Any]) -> None:
    """Put plugins whose class says ``outermost = True`` before all others."""
    plugins = merged.get("plugins")
    if not isinstance(plugins, dict):
        return

    def inner(name: str) -> bool:
        entries = registry.entries.get(("plugin", name), [])
        return not any(getattr(entry.value, "outermost", False) for entry in entries)

    merged["plugins"] = {name: plugins[name] for name in sorted(plugins, key=inner)}


def _default_card(registry: Registry, user: Iterable[Document]) -> str | None:
    """Return the card of the data set that the user names, or of the one that calls itself default.

    A data set's class may carry ``card``, a card's name, and ``default = True``.
    """
    name, named_by = None, None
    for layer in user:
        choice = layer.data.get("data")
        if choice is not None:
            name = choice.get("name", name) if isinstance(choice, dict) else str(choice)
            named_by = layer
    if name is None:
        name = next((e.name for e in registry.all("dataset") if hasattr(e.value, "default")), None)
    if name is None:
        raise ConfigError(f"name a data set with --data: {', '.join(registry.names('dataset'))}")
    return getattr(_named(registry, "dataset", name, named_by, "data").value, "card", None)


def _named(registry: Registry, kind: str, name: str, layer: Document | None, key: str) -> Entry:
    """Look ``name`` up; an error begins with the place of ``key`` in ``layer``."""
    try:
        return registry.get(kind, name)
    except ConfigError as error:
        if layer is None or not layer.lines:
            raise
        raise ConfigError(f"{layer.where((key,))}: {error}") from error


def _expand(data: Mapping[str, Any], plugins: Options, layer: Document) -> dict[str, Any]:
    """Turn plain names into choices and ``--set plugin.option`` into a nested key."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key in CHOICES and isinstance(value, str):
            result[key] = {"name": value}
        elif key in ("plugins", "metrics") and isinstance(value, dict):
            result[key] = {k: {} if v is None else v for k, v in value.items()}
        elif key in TOP_KEYS:
            result[key] = value
        elif key in plugins:
            result["plugins"] = {key: value}
        else:
            known = (*plugins, *TOP)
            raise ConfigError(
                f"{layer.source}: {key!r} is no plugin of this run{did_you_mean(key, known)}"
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


def _drop(merged: dict[str, Any], without: Sequence[str]) -> None:
    plugins = merged.get("plugins", {})
    for name in without:
        if name not in plugins:
            raise ConfigError(
                f"--without {name}: it is no plugin of this run{did_you_mean(name, plugins)}"
            )
    for name in without:
        plugins.pop(name, None)


def _validate(
    registry: Registry, merged: dict[str, Any], sources: Mapping[KeyPath, Document]
) -> RunConfig:
    def where(path: KeyPath) -> str:
        for end in range(len(path), 0, -1):
            if path[:end] in sources:
                return sources[path[:end]].where(path)
        return ".".join(path) or "config"

    config = options.build(RunConfig, merged, where)

    def checked(kind: str, name: str, given: Any, path: KeyPath) -> dict[str, Any]:
        try:
            cls = registry.get(kind, name).value
        except ConfigError as error:
            raise ConfigError(f"{where(path)}: {error}") from error
        return options.dump(options.build(cls, given, lambda rest: where((*path, *rest))))

    resolved: dict[str, Any] = {}
    for key, kind in CHOICES.items():
        choice = dict(getattr(config, key))
        name = choice.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"{where((key,))}: give a name, for example `{key}: {{name: ...}}`")
        resolved[key] = {"name": name, **checked(kind, name, choice, (key,))}
    for key, kind in (("plugins", "plugin"), ("metrics", "metric")):
        resolved[key] = {
            name: checked(kind, name, given, (key, name))
            for name, given in getattr(config, key).items()
        }
    if config.accuracy.metric not in resolved["metrics"]:
        known = resolved["metrics"]
        raise ConfigError(
            f"{where(('accuracy', 'metric'))}: {config.accuracy.metric!r} is not among the "
            f"metrics{did_you_mean(config.accuracy.metric, known)}"
        )
    config = options.build(RunConfig, {**merged, **resolved}, where)
    build_plugins(registry, config)
    return config
