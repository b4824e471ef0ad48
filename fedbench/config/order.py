"""The order of a run's plugins: as written, and as the plugins' classes state.

The card's plugins come first, then the recipe's. The plugins that a YAML file names run in the
file's order, even where the card or the recipe names them too. A new plugin comes right before the
next one that the file names, or else at the end. A plugin that is added without neighbours of its
own (by a recipe, by a flag, at the end of a file) comes as late as its class allows: a transform of
pixels before the plugin that normalises them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..plugins.facts import PluginFacts, facts
from ..plugins.order import misplaced
from ..plugins.registry import Entry, Registry


@dataclass(frozen=True)
class Listed:
    """The plugins that one layer names, in its order.

    Args:
        names: the plugins.
        kept: whether they run in this order even where an earlier layer names them too, or where
            their classes state otherwise, which `misplaced` then reports.
        replaced: plugin of an earlier layer -> the plugins that take its place.
    """

    names: tuple[str, ...]
    kept: bool
    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def arrange(registry: Registry, merged: dict[str, Any], sources: Sequence[Listed]) -> None:
    """Put the plugins of a merged config in order, source by source; see this module.

    Args:
        registry: what is installed; a name that is not installed goes to the end.
        merged: the config.
        sources: who named its plugins, beginning with the lowest layer.
    """
    plugins = merged.get("plugins", {})
    # A plugin that is replaced holds the place for its successor.
    known = {*plugins, *(name for source in sources for name in source.replaced)}
    entries = {n: found[0] for n in known if (found := registry.entries.get(("plugin", n)))}
    order: list[str] = []
    for source in sources:
        for old, new in source.replaced.items():
            order = _replaced(order, old, [name for name in new if name in known], entries)
        given = [name for name in source.names if name in known]
        order = _with(order, given, source.kept, entries)

    def inner(name: str) -> bool:
        return name not in entries or not facts(PluginFacts, entries[name].value).outermost

    if plugins:
        merged["plugins"] = {name: plugins[name] for name in sorted(order, key=inner)}


def _replaced(
    order: Sequence[str], old: str, new: Sequence[str], entries: Mapping[str, Entry]
) -> list[str]:
    """Return ``order`` with ``new`` in the place of ``old``, or only without ``old``.

    The latter where the classes do not allow that place, so that `_with` finds another one.
    """
    at = order.index(old)
    head, tail = order[:at], order[at + 1 :]
    found = [*head, *(name for name in new if name not in order), *tail]
    wrong = misplaced([(n, entries[n].value) for n in found if n in entries])
    return [*head, *tail] if wrong else found


def _with(
    order: Sequence[str], given: Sequence[str], kept: bool, entries: Mapping[str, Entry]
) -> list[str]:
    """Return ``order`` with what a source names; plugins that it does not name keep their places.

    Args:
        order: the plugins of the sources below.
        given: the plugins that the source names, in its order.
        kept: as in `Listed`.
        entries: the plugins that are installed.
    """
    both = [name for name in given if name in order]
    result = list(order)
    if kept:
        again = iter(both)
        result = [next(again) if name in both else name for name in order]
    added: list[str] = []
    for position, name in enumerate(given):
        if name in both:
            continue
        before = [n for n in given[:position] if n in both] if kept else []
        after = [n for n in given[position:] if n in both] if kept else []
        first = result.index(before[-1]) + 1 if before else 0
        last = result.index(after[0]) if after else len(result)
        result = _inserted(result, name, range(last, first - 1, -1), added, kept, entries)
        added.append(name)
    return result


def _inserted(
    order: Sequence[str],
    name: str,
    places: Sequence[int],
    added: Sequence[str],
    kept: bool,
    entries: Mapping[str, Entry],
) -> list[str]:
    """Return ``order`` with ``name`` in the first of ``places`` where nothing is misplaced.

    Plugins that the same source added before it stay before it where they share a hook, because
    then their order has an effect.
    """
    hooks = {n: set(entries[n].hooks) if n in entries else set() for n in (*added, name)}
    for at in places:
        head, tail = order[:at], order[at:]
        earlier = [n for n in tail if n in added and hooks[n] & hooks[name]]
        together = [*head, *earlier, name, *(n for n in tail if n not in earlier)]
        for found in (together,) if kept else (together, [*head, name, *tail]):
            if not misplaced([(n, entries[n].value) for n in found if n in entries]):
                return found
    return [*order[: places[0]], name, *order[places[0] :]]
