"""How a config differs from its method's recipe on its card, in the form that tables show."""

from __future__ import annotations

import json
from typing import Any

from .. import options
from ..errors import ConfigError
from ..plugins.registry import Registry
from .build import dotted
from .model import KEYS, RunConfig
from .resolve import resolve

NO_CHANGE = ("method", "seed", "device", "executor", "origin")
"""Config keys that say nothing about what is measured: names, repetitions, where it runs."""


def describe_changes(registry: Registry, config: RunConfig) -> list[str]:
    """Return how a config differs from its recipe on its card: ``-hpal``, ``rounds=5``.

    The keys in `NO_CHANGE` are left out. The list is empty when the config has no recipe.
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
    for key in (key for key in KEYS if key not in (*NO_CHANGE, "plugins")):
        if mine[key] != base[key]:
            text = mine[key] if not isinstance(mine[key], dict) else json.dumps(mine[key])
            changes.append(f"{key}={text}")
    return changes


def _defaults(registry: Registry, name: str) -> dict[str, Any]:
    """Return the default options of a plugin; ``{}`` when some option has no default."""
    try:
        return options.dump(options.build(registry.get("plugin", name).value, {}, dotted(name)))
    except ConfigError:
        return {}
