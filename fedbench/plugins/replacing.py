"""Which plugins give way when a layer of a config names others for the same single hooks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from ..hookspecs import OBSERVERS, SINGLE
from .hooks import RUN_AT_ONCE
from .rules import RUN_HOOKS, marked


@dataclass(frozen=True)
class Replacement:
    """A plugin of a lower layer that plugins of a higher one replace.

    Args:
        old: the plugin that gives way.
        new: the plugins that take its place.
        hook: a single hook that the old one and the first new one implement.
        lost: the hooks that only the old one implements, in the order of a round. The hooks of
            observers do not count, because they change nothing.
    """

    old: str
    new: tuple[str, ...]
    hook: str
    lost: tuple[str, ...]


def replacements(named: Mapping[str, type], below: Mapping[str, type]) -> list[Replacement]:
    """Return which of the plugins ``below`` give way to those that a layer adds.

    Args:
        named: the plugins that the layer names, in order; those that are also in ``below`` keep
            their places and replace nothing.
        below: the plugins of the layers below it, without those that it leaves out.
    """
    added = {name: cls for name, cls in named.items() if name not in below}
    found = []
    for old, cls in below.items():
        shared = {name: bases(other) & bases(cls) for name, other in added.items()}
        new = tuple(name for name, hooks in shared.items() if hooks)
        if old in named or not new:
            continue
        ours = set().union(*(_implemented(added[name]) for name in new))
        lost = [what for what in _implemented(cls) if what not in ours]
        hook = min(shared[new[0]], key=RUN_HOOKS.index)
        found.append(Replacement(old, new, hook, tuple(lost)))
    return found


def rivals(named: Mapping[str, type]) -> tuple[str, str, str] | None:
    """Return two plugins with base implementations of one single hook, and the hook, if any."""
    for hook in (hook for hook in RUN_HOOKS if hook in SINGLE):
        both = [name for name, cls in named.items() if hook in bases(cls)]
        if len(both) > 1:
            return both[0], both[1], hook
    return None


def bases(cls: type) -> frozenset[str]:
    """Return the single hooks of which a plugin's class has the base implementation.

    A ``yield`` where none can run is a wrapper that its author forgot to mark, as `RunPlugins`
    reports.
    """
    return frozenset(
        hook
        for hook, function in marked(cls).items()
        if hook in SINGLE
        and not function.fedbench_impl.get("wrapper")
        and not (hook in RUN_AT_ONCE and inspect.isgeneratorfunction(function))
    )


def _implemented(cls: type) -> list[str]:
    """Return what a plugin does in the round, hook by hook; to wrap a hook is another thing."""
    return [
        f"{hook} (as a wrapper)" if function.fedbench_impl.get("wrapper") else hook
        for hook, function in marked(cls).items()
        if hook not in OBSERVERS
    ]
