"""The registry: everything that packages provide, by kind and name, and which package provides it.

A kind is a run plugin, data set, model, metric, executor, recipe (a method) or card (a protocol).
Two packages may register the same name; that is an error only when a run asks for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pluggy

from ..errors import ConfigError, PluginError, did_you_mean
from ..hookspecs import DiscoveryHooks
from ..text import summary
from .rules import (
    FILES,
    LABELS,
    check_api,
    check_marker,
    check_name,
    check_schema,
    check_unmarked,
    check_value,
    marked,
)

GROUP = "fedbench"
BUNDLED = "fedbench-toolkit"
IN_MEMORY = "(in memory)"
"""The package of plugins that are classes in memory, without a package."""

LIMIT = "FEDBENCH_PLUGINS"
"""Environment variable: the packages to load besides the bundled ones, ``a,b``; default all."""

KINDS = {
    name.removeprefix("register_").removesuffix("s"): name
    for name in vars(DiscoveryHooks)
    if name.startswith("register_")
}
"""Kind -> the discovery hook that registers it."""


@dataclass(frozen=True)
class Entry:
    """One registered thing: its kind and name, its value, and the distribution that provides it."""

    kind: str
    name: str
    value: Any
    package: str
    version: str

    @property
    def about(self) -> str:
        """The first line of its docstring; for a recipe, its ``about``."""
        text = inspect.getattr_static(self.value, "about", None)
        text = text if isinstance(text, str) else inspect.getdoc(self.value) or ""
        return text.strip().split("\n")[0]

    @property
    def in_memory(self) -> bool:
        """Whether it is a class in memory, see `fedbench.plugins.memory`."""
        return self.package == IN_MEMORY

    @cached_property
    def hooks(self) -> list[str]:
        """The run hooks that a plugin class implements, in the order of a round."""
        return list(marked(self.value)) if self.kind == "plugin" else []

    @cached_property
    def own_hooks(self) -> list[str]:
        """Those of `hooks` that it implements itself, and does not only wrap."""
        found = marked(self.value) if self.kind == "plugin" else {}
        return [name for name, method in found.items() if not method.fedbench_impl.get("wrapper")]


@dataclass
class Registry:
    """Everything that the installed packages register, by kind and name."""

    entries: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Package -> why it could not be loaded."""
    left_out: list[str] = field(default_factory=list)
    """Packages that ``FEDBENCH_PLUGINS`` excludes."""

    def add(
        self,
        module: object,
        package: str = "(local)",
        version: str = "",
        *,
        api_required: bool = False,
    ) -> None:
        """Register a module or object that implements discovery hooks.

        Args:
            module: it may state ``fedbench_api``; an installed package must (``api_required``).
            package: the package that provides it.
            version: the package's version.
            api_required: whether to refuse a module that does not state ``fedbench_api``.

        Raises:
            PluginError: when it breaks a rule; then nothing from it is registered.
        """
        check_api(module, api_required)
        for hook in KINDS.values():
            function = getattr(module, hook, None)
            if not (inspect.isroutine(function) and hasattr(function, "fedbench_impl")):
                check_unmarked("", hook, function)
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(DiscoveryHooks)
        try:
            manager.register(module, name=package)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(summary(error)) from error
        found = []
        for kind, hook in KINDS.items():
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                for name, value in _offered(hook, implementation.function).items():
                    check_name(kind, name)
                    check_value(kind, name, value)
                    if package != BUNDLED and kind not in ("recipe", *FILES):
                        check_schema(name, value)
                    found.append(Entry(kind, name, value, package, version))
        for entry in found:
            self.entries.setdefault((entry.kind, entry.name), []).append(entry)

    def names(self, kind: str) -> list[str]:
        """Return the names registered for ``kind``, sorted."""
        return sorted(name for k, name in self.entries if k == kind)

    def all(self, kind: str) -> list[Entry]:
        """Return every entry of ``kind``, sorted by name, including all that share a name."""
        return [e for n in self.names(kind) for e in self.entries[kind, n]]

    def families(self) -> dict[str, list[Entry]]:
        """Return family -> the methods of it, sorted; those that state none come last, as other."""
        found: dict[str, list[Entry]] = {}
        for entry in sorted(self.all("recipe"), key=lambda e: (not e.value.family, e.value.family)):
            found.setdefault(entry.value.family or "other", []).append(entry)
        return found

    def implementing(self, hook: str) -> list[str]:
        """Return the names of the plugins that implement a run hook other than by wrapping it."""
        found = [
            e
            for e in self.all("plugin")
            if hook in (methods := marked(e.value))
            and not methods[hook].fedbench_impl.get("wrapper")
        ]
        return list(dict.fromkeys(e.name for e in found))

    def get(self, kind: str, name: str) -> Entry:
        """Return the entry of that kind and name.

        Raises:
            ConfigError: when there is none, naming the nearest name, or when there are several.
        """
        found = self.entries.get((kind, name), [])
        if len(found) == 1:
            return found[0]
        label = LABELS.get(kind, kind)
        owners = list(dict.fromkeys(e.package for e in found))
        if len(owners) == 1:
            raise ConfigError(f"{label} {name!r} is registered {len(found)} times by {owners[0]}")
        if owners:
            raise ConfigError(
                f"{label} {name!r} is provided by {' and '.join(owners)}; uninstall one or limit "
                f"the packages with {LIMIT}"
            )
        message = f"no {label} {name!r}{did_you_mean(name, self.names(kind))}"
        if self.failures:
            broken = "; ".join(f"{p}: {why}" for p, why in sorted(self.failures.items()))
            message += f"; not loaded: {broken}"
        if self.left_out:
            message += f"; left out by {LIMIT}: {', '.join(self.left_out)}"
        raise ConfigError(message)


def _offered(hook: str, function: Callable[[], object]) -> Mapping[str, Any]:
    """Return what one discovery hook returns, called directly because pluggy drops a ``None``."""
    if check_marker("the package", hook, function).get("wrapper"):
        raise PluginError(f"the package: {hook} cannot be a wrapper")
    offered = function()
    if not isinstance(offered, Mapping):
        raise PluginError(
            f"{hook} returned {type(offered).__name__}; return a mapping, {{}} for nothing"
        )
    return offered
