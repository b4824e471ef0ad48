"""How a config differs from its method's recipe on its card, in the form that tables show."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .. import options
from ..errors import ConfigError
from ..plugins.registry import Registry
from ..plugins.replacing import replacements
from .construct import dotted
from .model import KEYS, RunConfig
from .resolve import resolve
from .yamlfile import inline

NO_CHANGE = ("method", "seed", "device", "executor", "origin")
"""Config keys that say nothing about what is measured: names, repetitions, where it runs."""


def describe_changes(registry: Registry, config: RunConfig, but: Collection[str] = ()) -> list[str]:
    """Return how a config differs from its recipe on its card: ``-hpal``, ``rounds=5``.

    What is left out, added and set makes the same config of the recipe, unless the list says
    ``reordered``. The list is empty when the config has no recipe.

    Args:
        registry: what is installed.
        config: the config.
        but: config keys and plugins to say nothing about.
    """
    if "recipe" not in config.origin:
        return []
    for kind in ("recipe", "card"):
        if kind in config.origin and (kind, config.origin[kind]) not in registry.entries:
            return [f"unknown {kind}"]
    recipe, card = config.origin["recipe"], config.origin.get("card")
    base = resolve(registry, recipe, card=card).to_dict()
    mine = config.to_dict()
    before, after = (
        {name: given for name, given in data["plugins"].items() if name not in but}
        for data in (base, mine)
    )
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    sets = []
    for name, given in after.items():
        old = before.get(name) or _defaults(registry, name)
        sets += [
            f"{name}.{key}={inline(value)}"
            for key, value in given.items()
            if key not in old or value != old[key]
        ]
    order = [name for name in before if name not in gone]
    if new:  # a flag puts a plugin where its class wants it, or in the place of another one
        clocks, timed = _clocks(registry, mine["plugins"], but)

        def flagged(without: list[str]) -> list[str]:
            plus, given = [*clocks, *new], [*timed, *sets]
            found = resolve(registry, recipe, card=card, without=without, plus=plus, sets=given)
            return [name for name in found.plugins if name not in but]

        unsaid = _replaced(registry, gone, new)
        short = [name for name in gone if name not in unsaid]
        order = flagged(short)
        if list(after) == order:
            gone = short
        elif unsaid:
            order = flagged(gone)
    moved = ["reordered"] if list(after) != order else []
    for key in (key for key in KEYS if key not in (*but, *NO_CHANGE, "plugins")):
        sets += _differences(key, base[key], mine[key])
    return [*(f"-{name}" for name in gone), *(f"+{name}" for name in new), *moved, *sets]


def _clocks(
    registry: Registry, plugins: Mapping[str, Mapping[str, Any]], but: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return the clocks among the plugins of ``but``, which schedules need, and their options."""
    clocks = [n for n in plugins if n in but and "duration" in registry.get("plugin", n).own_hooks]
    sets = [f"{n}.{key}={inline(value)}" for n in clocks for key, value in plugins[n].items()]
    return clocks, sets


def _replaced(registry: Registry, gone: list[str], new: list[str]) -> set[str]:
    """Return those of the plugins ``gone`` that adding the ``new`` ones removes."""
    named, below = (
        {name: registry.get("plugin", name).value for name in names} for names in (new, gone)
    )
    return {found.old for found in replacements(named, below) if not found.lost}


def _differences(key: str, before: Any, after: Any) -> list[str]:
    """Return ``key=value`` where a value differs; keys of a mapping with fixed keys one by one."""
    fixed = isinstance(before, dict) and isinstance(after, dict) and list(before) == list(after)
    if fixed and "name" not in after and key != "metrics":
        return [d for k in after for d in _differences(f"{key}.{k}", before[k], after[k])]
    return [f"{key}={inline(after)}"] if after != before else []


def joined(method: str, changes: Iterable[str]) -> str:
    """Return the name of a variant, ``fedhpro:-hpal:hpcl.temperature=0.1``; see `parts`."""
    return ":".join((method, *changes))


def parts(variant: str) -> list[str]:
    """Split the name of a variant at its colons, but not at those in quotes or brackets."""
    found, depth = [""], 0
    for piece in re.findall(r'"(?:\\.|[^"\\])*"|.', variant, re.DOTALL):
        depth = max(0, depth + (piece in ("[", "{")) - (piece in ("]", "}")))
        if piece == ":" and not depth:
            found.append("")
        else:
            found[-1] += piece
    return found


def _defaults(registry: Registry, name: str) -> dict[str, Any]:
    """Return the default options of a plugin; ``{}`` when some option has no default."""
    try:
        return options.dump(options.build(registry.get("plugin", name).value, {}, dotted(name)))
    except ConfigError:
        return {}
