"""Discovery of plugins, and the hooks of one run.

Packages are found through entry points of the group ``fedbench`` and loaded one by one: one that
breaks is remembered and reported only when a run asks for something that nobody else provides.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import pluggy

from .errors import ConfigError, PluginError, did_you_mean
from .hookspecs import AT_MOST_ONE, REQUIRED_ANY, SINGLE, DiscoveryHooks, RunHooks

GROUP = "fedbench"
BUNDLED = "fedbench-toolkit"

RUN_HOOKS = tuple(n for n in vars(RunHooks) if not n.startswith("_"))

KINDS = {
    name.removeprefix("register_").removesuffix("s"): name
    for name in vars(DiscoveryHooks)
    if name.startswith("register_")
}
"""Kind of thing -> the discovery hook that registers it."""

RESERVED = frozenset(
    {"method", "recipe", "card", "origin", "seed", "rounds", "data", "model", "executor", "device"}
    | {"accuracy", "metrics", "inference", "plugins", "fedbench", "precision", "failures"}
)
"""Top-level keys of a config; a run plugin can't have such a name, since ``--set`` uses both."""


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
        text = getattr(self.value, "about", None) or inspect.getdoc(self.value) or ""
        return str(text).strip().split("\n")[0]

    @property
    def hooks(self) -> list[str]:
        """The run hooks that a plugin class implements, in the order of a round."""
        return [n for n in RUN_HOOKS if hasattr(getattr(self.value, n, None), "fedbench_impl")]


@dataclass
class Registry:
    """Everything that the environment's packages register, by kind and name."""

    entries: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Package -> why it could not be loaded."""

    def add(self, module: object, package: str = "(local)", version: str = "") -> None:
        """Register a module or object that implements discovery hooks.

        Raises:
            PluginError: when it breaks a rule; nothing of it is registered then.
        """
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(DiscoveryHooks)
        try:
            manager.register(module, name=package)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(str(error).replace("\n", " ")) from error
        found = []
        for kind, hook in KINDS.items():
            for mapping in getattr(manager.hook, hook)():
                for name, value in mapping.items():
                    if kind == "plugin":
                        check_plugin_class(name, value)
                    elif kind not in ("recipe", "card"):
                        check_options_class(name, value)
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
        label = {"recipe": "method", "dataset": "data set"}.get(kind, kind)
        if found:
            owners = " and ".join(e.package for e in found)
            raise ConfigError(
                f"{label} {name!r} is provided by {owners}; uninstall one or limit the packages "
                "with FEDBENCH_PLUGINS"
            )
        message = f"no {label} {name!r}{did_you_mean(name, self.names(kind))}"
        if self.failures:
            broken = "; ".join(f"{p}: {why}" for p, why in sorted(self.failures.items()))
            message += f"; not loaded: {broken}"
        raise ConfigError(message)


def check_options_class(name: str, cls: object) -> None:
    """Check that ``cls`` is a dataclass of options.

    Raises:
        PluginError: when it is not a frozen dataclass with identity equality.
    """
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise PluginError(f"{name!r} must be a dataclass of options, got {cls!r}")
    params = cls.__dataclass_params__  # type: ignore[attr-defined]
    if not params.frozen or params.eq:
        raise PluginError(
            f"{name!r} ({cls.__name__}) must be @dataclass(frozen=True, eq=False): plugins hold "
            "options only; what lasts between rounds belongs in the server's or client's state"
        )


def check_plugin_class(name: str, cls: object) -> None:
    """Check a run plugin's class: options only, known hooks, no defaulted hook argument.

    Raises:
        PluginError: naming the plugin, the hook and the rule.
    """
    check_options_class(name, cls)
    if name in RESERVED:
        raise PluginError(f"a plugin can't be called {name!r}: that is a top-level config key")
    found = False
    for attribute in dir(cls):
        function = inspect.getattr_static(cls, attribute)
        options = getattr(function, f"{GROUP}_impl", None)
        if options is None:
            continue
        found = True
        hook = options.get("specname") or attribute
        spec = getattr(RunHooks, hook, None)
        if spec is None:
            raise PluginError(
                f"plugin {name!r} implements unknown hook {hook!r}{did_you_mean(hook, RUN_HOOKS)}"
            )
        if options.get("hookwrapper"):
            raise PluginError(f"plugin {name!r}: {hook} uses hookwrapper; use wrapper=True")
        if options.get("wrapper") and hook not in SINGLE:
            raise PluginError(
                f"plugin {name!r} wraps {hook!r}; only {', '.join(sorted(SINGLE))} can be wrapped"
            )
        known = set(inspect.signature(spec).parameters) - {"self"}
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.default is not parameter.empty:
                raise PluginError(
                    f"plugin {name!r}: argument {parameter.name!r} of {hook} has a default; "
                    "hooks never pass such an argument, so remove the default"
                )
            if parameter.name not in known:
                raise PluginError(
                    f"plugin {name!r}: {hook} has no argument {parameter.name!r}"
                    f"{did_you_mean(parameter.name, known)}"
                )
    if not found:
        raise PluginError(f"plugin {name!r} implements no hook; mark methods with @hookimpl")


def discover() -> Registry:
    """Load every package of the entry-point group, one by one, and return the registry.

    With ``FEDBENCH_PLUGINS=name,name`` only those packages are loaded, beside the bundled ones.
    """
    registry = Registry()
    only = os.environ.get("FEDBENCH_PLUGINS")
    wanted = {BUNDLED, *(n.strip() for n in only.split(","))} if only is not None else None
    points = sorted(metadata.entry_points(group=GROUP), key=lambda p: p.name)
    for point in points:
        package = point.dist.name if point.dist else point.value
        version = point.dist.version if point.dist else ""
        if wanted is not None and package not in wanted:
            continue
        try:
            registry.add(point.load(), package, version)
        except Exception as error:  # one broken package must not break the others
            why = f"{type(error).__name__}: {error}".split("\n")[0]
            registry.failures[f"{package} ({point.value})"] = why
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
