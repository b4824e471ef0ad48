"""Resolve a method's name, a YAML file and flags into one frozen config that states every value.

The config is made from layers, each overriding the ones before it: built-in defaults, the card (the
data set's protocol), the recipe (the method), the YAML file, the flags. The resolved config holds
every value, so running it again repeats the run without a card or recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import options
from ..errors import ConfigError, MissingClassError, did_you_mean
from ..plugins.facts import DatasetFacts, facts
from ..plugins.registry import Entry, Registry
from . import layers, merging, stopping, yamlfile
from .cards import load_card
from .construct import build_plugins
from .layers import CHOICES, Layer, LeftOut
from .merging import Merged
from .model import RunConfig
from .yamlfile import Document, KeyPath

UNKNOWN_CLASS = (
    "; the run used a class in memory, so its config alone cannot repeat it: give the class in "
    "Python, plugins={{{0!r}: ...}}, or make it a package (`fedbench new`); the run directory has "
    "its source in in_memory/{0}.py, if there was one"
)


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
    seen: Callable[[Merged], object] = lambda merged: None,
) -> RunConfig:
    """Resolve a config from its layers and check every name and option.

    Args:
        registry: what is installed.
        method: a recipe's name; may come from the file's ``recipe`` key instead.
        file: a parsed YAML file, complete or partial.
        card: a card's name; default the file's ``card`` key, or else the data set's own card.
        sets: ``key=value`` with dotted keys: ``hpcl.temperature=0.1``, ``rounds=5``.
        without: plugins of card, recipe and file to leave out.
        plus: plugins to add with their defaults; ``sets`` may set their options. They come last,
            or in the place of those that they replace.
        flags: top-level keys given as flags; ``data`` and ``model`` as plain names, ``stop_at``
            also as ``METRIC=VALUE``.
        seen: is called with the merged layers, which know where each value came from.

    Raises:
        ConfigError: naming the file, line and key, and the nearest valid name.
    """
    shorts = dict(file.data) if file else {}
    if file and _is_whole(file):
        _refuse_another(file, "recipe", method)
        _refuse_another(file, "card", card)
    user = [layers.from_file(file)] if file else []
    given, stopping_metric = stopping.read_flags(flags or {})
    user.append(layers.from_flags(registry, sets, given, plus, without))
    whole = method is None and "recipe" not in shorts and _is_whole(file)
    card_name = card or shorts.get("card")
    if card_name:
        _named(registry, "card", str(card_name), None if card else file, "card")
    elif not whole:
        card_name = _default_card(registry, (d for layer in user for d in layer.documents))
    below = [_card_layer(registry, str(card_name))] if card_name else []
    recipe_name = method or shorts.get("recipe")
    if recipe_name is not None:
        below.append(_recipe_layer(registry, str(recipe_name), None if method else file))
    if not whole:
        _require_enough(file, card_name, recipe_name)
    merged = merging.merge(registry, [*below, *user])
    seen(merged)
    config = _validate(registry, merged.data, merged.sources)
    stopping.check_metric(config, stopping_metric)
    return config


def load_config(registry: Registry, path: str | Path, **more: Any) -> RunConfig:
    """Resolve the YAML file at ``path``; ``more`` as in `resolve`."""
    return resolve(registry, file=yamlfile.read(Path(path)), **more)


def _is_whole(file: Document | None) -> bool:
    """Return whether a file needs neither card nor recipe."""
    return file is not None and {"data", "model", "plugins"} <= file.data.keys()


def _refuse_another(file: Document, kind: str, asked: str | None) -> None:
    """Check that a complete config is not asked to be of another recipe or card than its own.

    Raises:
        ConfigError: since its values would win, without a word.
    """
    origin = file.data.get("origin")
    own = origin.get(kind) if isinstance(origin, Mapping) else None
    if asked is not None and own is not None and asked != own:
        what = "the method" if kind == "recipe" else "the card"
        raise ConfigError(
            f"{file.source} states every value, of {what} {own!r}, so {asked!r} would change "
            f"nothing; leave {asked!r} out, or write a file with only what differs from it"
        )


def _card_layer(registry: Registry, name: str) -> Layer:
    """Return the card's values, and what ``origin`` says about them."""
    found = load_card(registry, name)
    origin = {"card": name, "card_hash": found.hash}
    return Layer((Document({"origin": origin, **found.config}, f"card {name}"),), kept=True)


def _recipe_layer(registry: Registry, name: str, named_by: Document | None) -> Layer:
    """Return the method's plugins; those of the card that it leaves out may be missing there."""
    recipe = _named(registry, "recipe", name, named_by, "recipe").value
    plugins = {plugin: dict(given) for plugin, given in recipe.plugins.items()}
    source = f"recipe {name}"
    data = {"origin": {"recipe": name}, "method": name, "plugins": plugins}
    left = tuple(LeftOut(plugin, source, source) for plugin in recipe.without)
    return Layer((Document(data, source),), left, lenient=True, written="without=('{}',)")


def _require_enough(file: Document | None, card: str | None, recipe: str | None) -> None:
    """Check that card, recipe and file together can make a run.

    Raises:
        ConfigError: saying what to add.
    """
    if recipe is None:
        raise ConfigError(
            f"{file.source if file else 'command line'}: name a method (recipe: NAME) or give "
            "data, model and plugins in full; `fedbench config METHOD` prints a complete file"
        )
    if card is None and not (file and {"data", "model"} <= file.data.keys()):
        raise ConfigError(
            "this data set has no card of its own; name one with --card, or give data, model and "
            "the card's plugins in YAML (`fedbench config METHOD` prints a complete file to edit)"
        )


def _default_card(registry: Registry, user: Iterable[Document]) -> str | None:
    """Return the card of the data set that the user names, or of the default data set.

    A data set's class may state ``card``, a card's name, and ``default = True``.
    """
    name, named_by = None, None
    for layer in user:
        choice = layer.data.get("data")
        if choice is not None:
            named = choice.get("name", name) if isinstance(choice, dict) else choice
            name = None if named is None else str(named)
            named_by = layer
    if name is None:
        entries = registry.all("dataset")
        name = next((e.name for e in entries if facts(DatasetFacts, e.value).default), None)
    if name is None:
        raise ConfigError(f"name a data set with --data: {', '.join(registry.names('dataset'))}")
    return facts(DatasetFacts, _named(registry, "dataset", name, named_by, "data").value).card


def _named(registry: Registry, kind: str, name: str, layer: Document | None, key: str) -> Entry:
    """Look up ``name``; an error begins with the place of ``key`` in ``layer``."""
    try:
        return registry.get(kind, name)
    except ConfigError as error:
        if layer is None or not layer.lines:
            raise
        raise ConfigError(f"{layer.where((key,))}: {error}") from error


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
            if kind == "plugin" and name in config.in_memory:
                why = UNKNOWN_CLASS.format(name)
                raise MissingClassError(f"{where(path)}: {error}{why}") from error
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
    for key in ("stop_at", "stop_time"):
        stopping.check(registry, config, key, where((key,)))
    origin = {key: text for key, text in config.origin.items() if key != "in_memory"}
    if classes := [name for name in config.plugins if registry.get("plugin", name).in_memory]:
        origin["in_memory"] = ", ".join(classes)
    config = options.build(RunConfig, {**merged, **resolved, "origin": origin}, where)
    build_plugins(registry, config)
    return config
