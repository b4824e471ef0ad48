"""From a resolved config to the things that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import options
from ..plugins.hooks import RunPlugins
from ..plugins.registry import Registry
from .model import RunConfig


def build(registry: Registry, kind: str, choice: Mapping[str, Any]) -> Any:
    """Make the thing that a choice ``{name: ..., option: ...}`` names."""
    given = {k: v for k, v in choice.items() if k != "name"}
    cls = registry.get(kind, str(choice["name"])).value
    return options.build(cls, given, lambda path: ".".join((kind, *path)))


def build_plugins(registry: Registry, config: RunConfig) -> RunPlugins:
    """Make the run's plugins and check that they fit together."""
    return RunPlugins(
        [
            (name, options.build(registry.get("plugin", name).value, given, dotted(name)))
            for name, given in config.plugins.items()
        ]
    )


def dotted(name: str) -> options.Where:
    """Return how errors name the options of ``name`` where no file gave them."""
    return lambda path: ".".join((name, *path))
