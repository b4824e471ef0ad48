"""Layers are merged into one config: plugins are added, set, left out and replaced.

In a run, a single hook has one base implementation. A plugin that a layer names for such a hook
takes the place of the plugin that a layer below named for it: a YAML file's partition replaces the
card's, and a flag's replaces the file's. The whole plugin is replaced. If it also implements hooks
that its successor does not, this is refused, unless the layer leaves it out by name (``without``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import ConfigError, did_you_mean
from ..plugins.registry import Registry
from ..plugins.replacing import Replacement, replacements, rivals
from . import layers, order
from .layers import Layer
from .yamlfile import Document, KeyPath


class Removed(NamedTuple):
    """A plugin of a lower layer that is not in the run.

    Args:
        name: the plugin.
        source: the place that named it.
        why: what removed it, with its place.
    """

    name: str
    source: str
    why: str


@dataclass
class Merged:
    """What some layers make together, and where it came from.

    Args:
        data: the config, not checked yet.
        sources: key path -> the document that set it last.
        brought: plugin -> the document that brought it into the run.
        removed: the plugins that a layer removed, in the order of the layers.
    """

    data: dict[str, Any]
    sources: dict[KeyPath, Document] = field(default_factory=dict)
    brought: dict[str, Document] = field(default_factory=dict)
    removed: list[Removed] = field(default_factory=list)

    def remove(self, name: str, why: str) -> None:
        """Take a plugin out of the config."""
        del self.data["plugins"][name]
        layers.forget(self.sources, ("plugins", name))
        source = self.brought.pop(name).place(("plugins", name))
        self.removed.append(Removed(name, source, why))


def merge(registry: Registry, found: Iterable[Layer]) -> Merged:
    """Merge layers, the lowest first.

    Raises:
        ConfigError: for a plugin that cannot be left out or replaced, two plugins of one layer with
            base implementations of the same single hook, or a wrong ``--set``.
    """
    merged = Merged({"executor": {"name": "pool"}})
    listed = [_put(registry, merged, layer) for layer in found]
    order.arrange(registry, merged.data, listed)
    return merged


def _put(registry: Registry, merged: Merged, layer: Layer) -> order.Listed:
    """Put a layer on top of those below it; return the plugins that it names."""
    below = tuple(merged.brought)
    named: dict[str, Document] = {}
    for document in layer.documents:
        for name in layers.add(merged.data, document, merged.sources):
            named.setdefault(name, document)
    plugins = merged.data.get("plugins", {})
    for name, document in named.items():
        merged.brought.setdefault(name, document)
    _leave_out(merged, layer, below, named)
    kept = {name: plugins[name] for name in named if name in plugins}
    ours, theirs = (_classes(registry, names) for names in (kept, below))
    replaced = _replace(merged, ours, theirs, named, layer.written)
    return order.Listed(tuple(kept), layer.kept, {r.old: r.new for r in replaced})


def _classes(registry: Registry, names: Iterable[str]) -> dict[str, type]:
    """Return the classes of those plugins that are installed."""
    entries = registry.entries
    return {n: entries["plugin", n][0].value for n in names if entries.get(("plugin", n))}


def _leave_out(
    merged: Merged, layer: Layer, below: tuple[str, ...], named: Mapping[str, Document]
) -> None:
    """Remove the plugins that the layer leaves out.

    Raises:
        ConfigError: for one that the layers below do not have, naming the nearest.
    """
    for name, _, where in layer.without:
        if name in below or layer.lenient:
            continue
        if name in named:
            place = named[name].place(("plugins", name))
            raise ConfigError(f"{where}: only {place} adds this plugin; leave that out instead")
        near = did_you_mean(name, below)
        raise ConfigError(f"{where}: it is not a plugin of this run{near}")
    for name, by, _ in layer.without:
        if name in below and name in merged.brought:
            merged.remove(name, f"left out by {by}")


def _replace(
    merged: Merged,
    named: Mapping[str, type],
    below: Mapping[str, type],
    said: Mapping[str, Document],
    written: str,
) -> list[Replacement]:
    """Remove the plugins ``below`` whose place those that a layer names take.

    Raises:
        ConfigError: when two of the layer's plugins take the same place, or one that is removed
            does more than its successor.
    """
    if found := rivals(named):
        one, other, hook = found
        raise ConfigError(
            f"{said[other].where(('plugins', other))}: implements {hook!r}, and so does {one!r} "
            f"({said[one].place(('plugins', one))}); a run has exactly one, so leave out one of "
            "the two"
        )
    standing = {name: cls for name, cls in below.items() if name in merged.brought}
    replaced = replacements(named, standing)
    for old, new, hook, lost in ((r.old, r.new, r.hook, r.lost) for r in replaced):
        path = ("plugins", new[0])
        if lost:
            place = merged.brought[old].place(("plugins", old))
            raise ConfigError(
                f"{said[new[0]].where(path)}: would take the place of {old!r} ({place}) as "
                f"{hook!r}, but {old!r} also implements {', '.join(lost)}; if the run is meant to "
                f"lose that, add `{written.format(old)}`"
            )
        by = " and ".join(new)
        merged.remove(old, f"replaced by {by} ({said[new[0]].place(path)})")
    return replaced
