"""Discovery of plugins, and the hooks of one run.

Packages are found through entry points of the group ``fedbench`` and loaded one by one: one that
breaks is remembered and reported only when a run asks for something that nobody else provides. The
module that an entry point names says which hook API it was written for, ``fedbench_api = 1``.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import pluggy

from .errors import ConfigError, PluginError, did_you_mean
from .hookspecs import AT_MOST_ONE, REQUIRED_ANY, SINGLE, DiscoveryHooks, RunHooks
from .rules import (
    LABELS,
    RUN_HOOKS,
    check_api,
    check_marker,
    check_name,
    check_schema,
    check_value,
    first_line,
    marked,
    printable,
)

GROUP = "fedbench"
BUNDLED = "fedbench-toolkit"
LIMIT = "FEDBENCH_PLUGINS"
"""Environment variable: the packages to load beside the bundled ones, ``a,b``; default all."""

KINDS = {
    name.removeprefix("register_").removesuffix("s"): name
    for name in vars(DiscoveryHooks)
    if name.startswith("register_")
}
"""Kind of thing -> the discovery hook that registers it."""


@dataclass(frozen=True)
class Entry:
    """One registered thing: its kind, name, object, and the distribution that provides it."""

    kind: str
    name: str
    value: Any
    package: str
    version: str

    @property
    def about(self) -> str:
        """The first line of its docstring, or a recipe's own line."""
        text = inspect.getattr_static(self.value, "about", None)
        text = text if isinstance(text, str) else inspect.getdoc(self.value) or ""
        return text.strip().split("\n")[0]

    @property
    def hooks(self) -> list[str]:
        """The run hooks that a plugin class implements, in the order of a round."""
        return list(marked(self.value)) if self.kind == "plugin" else []


@dataclass
class Registry:
    """Everything that the environment's packages register, by kind and name."""

    entries: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Package -> why it could not be loaded."""
    left_out: list[str] = field(default_factory=list)
    """Packages that ``FEDBENCH_PLUGINS`` leaves out."""

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
            module: it may state ``fedbench_api``; installed packages have to (``api_required``).
            package: who provides it.
            version: of the package.
            api_required: refuse a module that doesn't state ``fedbench_api``.

        Raises:
            PluginError: when it breaks a rule; nothing of it is registered then.
        """
        check_api(module, api_required)
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(DiscoveryHooks)
        try:
            manager.register(module, name=package)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(str(error).replace("\n", " ")) from error
        found = []
        for kind, hook in KINDS.items():
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                for name, value in _offered(hook, implementation.function).items():
                    check_name(kind, name)
                    check_value(kind, name, value)
                    if package != BUNDLED and kind not in ("recipe", "card"):
                        check_schema(name, value)
                    found.append(Entry(kind, name, value, package, version))
        for entry in found:
            self.entries.setdefault((entry.kind, entry.name), []).append(entry)

    def names(self, kind: str) -> list[str]:
        """Return the names registered for ``kind``, sorted."""
        return sorted(name for k, name in self.entries if k == kind)

    def all(self, kind: str) -> list[Entry]:
        """Return every entry of ``kind``, sorted by name; colliding ones all appear."""
        return [e for n in self.names(kind) for e in self.entries[kind, n]]

    def get(self, kind: str, name: str) -> Entry:
        """Return the entry of that kind and name.

        Raises:
            ConfigError: when there is none, naming the nearest, or when two packages provide it.
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
    """Call one discovery hook. Directly, since pluggy would drop a ``None``."""
    if check_marker("the package", hook, function).get("wrapper"):
        raise PluginError(f"the package: {hook} can't be a wrapper")
    offered = function()
    if not isinstance(offered, Mapping):
        raise PluginError(
            f"{hook} returned {type(offered).__name__}; return a mapping, {{}} for nothing"
        )
    return offered


@dataclass(frozen=True)
class Source:
    """Code that discovery would import: one entry point of one installed distribution.

    Args:
        package: the distribution's name.
        version: the distribution's.
        value: what the entry point names, ``module`` or ``module:object``.
        point: the entry point; ``None`` when the distribution's list of them can't be read.
        loads: whether it is loaded; ``FEDBENCH_PLUGINS`` may leave it out.
        problem: why it can't be read.
    """

    package: str
    version: str
    value: str
    point: metadata.EntryPoint | None
    loads: bool = True
    problem: str = ""

    @property
    def label(self) -> str:
        """The package and what of it is loaded, for messages."""
        return f"{self.package} ({self.value})"

    @property
    def file(self) -> str:
        """Where the module's code is, found without importing it; empty when it isn't found."""
        path, origin = None, ""
        parts = self.value.partition(":")[0].strip().split(".")
        for end in range(1, len(parts) + 1):
            if end > 1 and path is None:  # what should hold the module is no package
                return ""
            try:
                tried = (f.find_spec(".".join(parts[:end]), path) for f in sys.meta_path)
                spec = next((s for s in tried if s), None)
            except Exception:  # a name or a folder that nothing can be looked up in
                return ""
            if spec is None:
                return ""
            path, origin = spec.submodule_search_locations, spec.origin or ""
        return origin


def sources() -> list[Source]:
    """Return what discovery would import, without importing any of it.

    Raises:
        ConfigError: when ``FEDBENCH_PLUGINS`` names a package that is not installed.
    """
    found: dict[tuple[str, str], Source] = {}
    homes: dict[str, metadata.Distribution] = {}
    for dist in metadata.distributions():
        try:
            points = [p for p in dist.entry_points if p.group == GROUP]
            if not points:
                continue
            package, version = printable(str(dist.name)), printable(str(dist.version))
        except Exception as error:  # a damaged installation must not break the others
            where = printable(os.path.basename(str(getattr(dist, "_path", dist))))
            why = f"its metadata can't be read: {type(error).__name__}: {first_line(error)}"
            found[where, ""] = Source(where, "", "entry_points.txt", None, problem=why)
            continue
        if homes.setdefault(_normal(package), dist) is not dist:
            continue  # the first one on the path is the one that Python imports
        for point in points:
            value = printable(point.value)
            found[package, value] = Source(package, version, value, point)
    wanted = _wanted([s.package for s in found.values() if s.point])
    chosen = [
        s if wanted is None or _normal(s.package) in wanted else replace(s, loads=False)
        for s in found.values()
    ]
    return sorted(chosen, key=lambda s: (s.package != BUNDLED, s.package, s.value))


def _normal(package: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _wanted(packages: Sequence[str]) -> set[str] | None:
    """Return the normalised names that ``FEDBENCH_PLUGINS`` allows; ``None`` for all."""
    given = os.environ.get(LIMIT)
    if given is None:
        return None
    known = {_normal(p): p for p in packages}
    wanted = {n.strip() for n in given.split(",") if n.strip()}
    for name in sorted(wanted):
        if _normal(name) not in known:
            near = did_you_mean(name, known.values())
            raise ConfigError(f"{LIMIT}: no installed package {name!r} has plugins{near}")
    return {_normal(n) for n in (BUNDLED, *wanted)}


def discover() -> Registry:
    """Load every package of the entry-point group, one by one, and return the registry.

    With ``FEDBENCH_PLUGINS=name,name`` only those packages are loaded, beside the bundled ones.

    Raises:
        ConfigError: when ``FEDBENCH_PLUGINS`` names a package that is not installed.
    """
    registry = Registry()
    for source in sources():
        if not source.loads:
            registry.left_out.append(source.label)
        elif source.point is None:
            registry.failures[source.label] = source.problem
        else:
            try:
                module = source.point.load()
                registry.add(module, source.package, source.version, api_required=True)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # even sys.exit(): it must not break the others
                text = f"{type(error).__name__}: {first_line(error)}"
                registry.failures[source.label] = text.removesuffix(": ")
    return registry


class RunPlugins:
    """The plugins of one run and their hooks.

    Args:
        plugins: (name, instance) in YAML order.

    Raises:
        ConfigError: when a single hook has no base implementation or several, a plugin's
            requirement is missing, or nothing gives a loss.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]]) -> None:
        self.plugins = list(plugins)
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(RunHooks)
        # pluggy calls the last registered first, so registering in reverse gives YAML order, and
        # makes the first wrapper in YAML order the outermost.
        for name, instance in reversed(self.plugins):
            self._manager.register(instance, name=name)
        self.hook = self._manager.hook
        self._check()
        everyone = {instance for _, instance in self.plugins}
        self._calls = {
            hook: [
                (name, _first(self._manager.subset_hook_caller(hook, everyone - {instance})))
                for name, instance in self.plugins
                if hook in self._implemented(instance)
            ]
            for hook in RUN_HOOKS
            if hook not in SINGLE
        }

    def _implemented(self, instance: object) -> set[str]:
        return {c.name for c in self._manager.get_hookcallers(instance) or []}

    def _check(self) -> None:
        names = [name for name, _ in self.plugins]
        for hook in sorted(SINGLE):
            impls = getattr(self.hook, hook).get_hookimpls()
            bases = [i.plugin_name for i in impls if not i.wrapper]
            if len(bases) != 1:
                what = f"{len(bases)} plugins" if bases else "no plugin"
                order = sorted(bases, key=names.index)
                raise ConfigError(
                    f"{what} implement{'' if bases else 's'} {hook!r}"
                    f"{': ' + ', '.join(order) if bases else ''}; a run needs exactly one"
                )
        for hook in sorted(AT_MOST_ONE):
            users = [i.plugin_name for i in getattr(self.hook, hook).get_hookimpls()]
            if len(users) > 1:
                raise ConfigError(f"{' and '.join(users)} both implement {hook!r}; keep one")
        for hook in sorted(REQUIRED_ANY):
            if not getattr(self.hook, hook).get_hookimpls():
                raise ConfigError(
                    f"no plugin implements {hook!r}; `fedbench plugins` lists which ones do"
                )
        for position, (name, instance) in enumerate(self.plugins):
            for needed in getattr(instance, "requires", ()):
                if needed not in names[:position]:
                    where = "before it" if needed in names else "in this run"
                    raise ConfigError(f"plugin {name!r} needs {needed!r} {where}")

    def calls(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """Return the plugins of a list hook in YAML order, each with a function that calls it."""
        return self._calls[hook]

    def collect(self, hook: str, **arguments: Any) -> dict[str, Any]:
        """Call a list hook plugin by plugin and join the mappings that they return.

        Raises:
            PluginError: when a plugin returns no mapping or two plugins return one key.
        """
        return {key: value for key, (_, value) in self.collect_owned(hook, **arguments).items()}

    def collect_owned(self, hook: str, **arguments: Any) -> dict[str, tuple[str, Any]]:
        """Like `collect`, with the plugin's name beside each value."""
        joined: dict[str, tuple[str, Any]] = {}
        for name, call in self.calls(hook):
            result = call(**arguments)
            if not isinstance(result, Mapping):
                raise PluginError(
                    f"plugin {name!r}: {hook} returned {type(result).__name__}; return a mapping, "
                    "{} for nothing"
                )
            for key, value in result.items():
                if key in joined:
                    raise PluginError(f"plugins {joined[key][0]!r} and {name!r} both give {key!r}")
                joined[key] = (name, value)
        return joined


def _first(caller: pluggy.HookCaller) -> Callable[..., Any]:
    """Return a function that calls the one implementation behind ``caller``."""

    def call(**arguments: Any) -> Any:
        results = caller(**arguments)
        return results[0] if results else None

    return call
