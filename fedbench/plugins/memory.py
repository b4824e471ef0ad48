"""Plugins that are classes in memory, such as one from a notebook's cell, without a package."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Mapping
from types import SimpleNamespace

from ..errors import ConfigError
from ..hookspecs import hookimpl
from .registry import IN_MEMORY, Registry
from .rules import marked


def with_classes(registry: Registry, classes: Mapping[str, type]) -> Registry:
    """Return a registry that has, besides what ``registry`` has, these classes as plugins.

    Args:
        registry: what is installed; it is not changed.
        classes: name -> class.

    Raises:
        ConfigError: for the name of an installed plugin.
        PluginError: for a class that breaks a rule of plugins.
    """
    for name, cls in classes.items():
        if ("plugin", name) in registry.entries:
            raise ConfigError(f"plugins: {name!r} is an installed plugin; choose another name")
        if not isinstance(cls, type):
            raise ConfigError(
                f"plugins: {name!r} must be a class, got {cls!r}; set its options as any plugin's"
            )

    def register() -> Mapping[str, type]:
        return classes

    entries = {key: list(found) for key, found in registry.entries.items()}
    more = Registry(entries, dict(registry.failures), list(registry.left_out))
    more.add(SimpleNamespace(register_plugins=hookimpl(register)), IN_MEMORY)
    return more


def source_of(cls: type) -> str:
    """Return the text of the notebook's cell or the file that defines a plugin's hooks.

    It is empty where Python does not keep it, as for what was typed into a plain interpreter.
    """
    hooks = (function for base in cls.__mro__ for function in marked(base).values())
    files = dict.fromkeys(function.__code__.co_filename for function in hooks)
    return "\n".join("".join(linecache.getlines(file)) for file in files)


def sources(registry: Registry, names: Iterable[str]) -> dict[str, str]:
    """Return plugin -> `source_of` its class, without those whose source is not known."""
    found = {name: source_of(registry.get("plugin", name).value) for name in names}
    return {name: text for name, text in found.items() if text}
