"""The hooks of one run: its plugins, checked against each other and called in YAML order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from ..errors import ConfigError, PluginError
from ..hookspecs import CORE_HAS, REQUIRED_ANY, SINGLE, RunHooks, hookimpl
from ..text import summary
from ..turns import Pace
from ..watching import UNWATCHED, Watch, Watched
from .facts import PluginFacts, facts
from .order import misplaced
from .registry import GROUP
from .rules import RUN_HOOKS, marked

if TYPE_CHECKING:
    from ..context import ClientContext

RUN_AT_ONCE = frozenset({"schedule", "client_update", "train", "duration", "aggregate"})
"""Single hooks whose result is not iterated over: a base with a ``yield`` would do nothing."""


class TrainsOnce:
    """Core's base of a client's turn."""

    @hookimpl
    def client_update(self, ctx: ClientContext) -> bool:
        """Train once."""
        ctx.train()
        return True


class WaitsForAll:
    """Core's base of a schedule."""

    @hookimpl
    def schedule(self) -> Pace:
        """End the round when all clients have answered."""
        return Pace()


class TakesNoTime:
    """Core's base of a clock."""

    @hookimpl
    def duration(self) -> float:
        """Take no time."""
        return 0.0


CORE: Mapping[str, type] = {
    "client_update": TrainsOnce,
    "schedule": WaitsForAll,
    "duration": TakesNoTime,
}
"""What core does itself in a run whose plugins do not: see `fedbench.hookspecs.CORE_HAS`."""


class _Manager(pluggy.PluginManager):
    """A manager that does not look for hooks in what every object has, such as ``__eq__``."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)


class RunPlugins:
    """The plugins of one run and their hooks.

    Args:
        plugins: (name, instance) in YAML order.
        watch: what observes every call of a hook.
        offers: returns the names of the installed plugins that implement a hook, for messages.

    Raises:
        PluginError: for an implementation that cannot be called.
        ConfigError: when a single hook has no base implementation or several, no plugin returns a
            loss, or a plugin that another one requires is missing, two plugins conflict, or
            `misplaced` finds one in the wrong place.
    """

    def __init__(
        self,
        plugins: Sequence[tuple[str, object]],
        watch: Watch = UNWATCHED,
        offers: Callable[[str], Sequence[str]] = lambda hook: (),
    ) -> None:
        self.plugins, self._offers = list(plugins), offers
        registered = [(name, _watched(name, instance, watch)) for name, instance in self.plugins]
        self._manager = _Manager(GROUP)
        self._manager.add_hookspecs(RunHooks)
        for hook in sorted(CORE_HAS):
            if not any(_has_base(type(instance), hook) for _, instance in self.plugins):
                self._manager.register(CORE[hook](), name=f"fedbench.{hook}")
        # pluggy calls the last registered plugin first, so registering them in reverse gives YAML
        # order and makes the first wrapper in YAML order the outermost.
        for name, instance in reversed(registered):
            try:
                self._manager.register(instance, name=name)
            except pluggy.PluginValidationError as error:
                raise PluginError(summary(error)) from error
        self.hook = self._manager.hook
        self._check()
        stated = [facts(PluginFacts, type(instance)).anchors for _, instance in self.plugins]
        self.anchors = tuple(dict.fromkeys(key for keys in stated for key in keys))
        """The keys under which the plugins broadcast class anchors."""
        everyone = {instance for _, instance in registered}
        implemented = {instance: self._implemented(instance) for instance in everyone}
        self._calls = {
            hook: [
                (name, _first(self._manager.subset_hook_caller(hook, everyone - {instance})))
                for name, instance in registered
                if hook in implemented[instance]
            ]
            for hook in RUN_HOOKS
            if hook not in SINGLE
        }

    def _implemented(self, instance: object) -> set[str]:
        return {c.name for c in self._manager.get_hookcallers(instance) or []}

    def _check(self) -> None:
        for hook in sorted(SINGLE):
            self._check_single(hook)
        for hook in sorted(REQUIRED_ANY):
            if not getattr(self.hook, hook).get_hookimpls():
                raise ConfigError(f"no plugin implements {hook!r}; {self._add_one(hook)}")
        if self.implements("schedule") and not self.implements("duration"):
            raise ConfigError(
                f"plugin {self.base_of('schedule')!r} decides by virtual time, and this run has no "
                f"clock; {self._add_one('duration')}"
            )
        self._check_required()
        self._check_conflicts()

    def _check_single(self, hook: str) -> None:
        """Check that a single hook has one base implementation, and that its code would run."""
        bases = [i for i in getattr(self.hook, hook).get_hookimpls() if not i.wrapper]
        yielding = [i for i in bases if inspect.isgeneratorfunction(i.function)]
        names = self._names(bases)
        hint = "".join(
            f"; {name!r} has a `yield`: if it is meant as a wrapper, mark it "
            "@hookimpl(wrapper=True)"
            for name in self._names(yielding)
        )
        if not bases:
            raise ConfigError(
                f"no plugin implements {hook!r}; a run needs exactly one: {self._add_one(hook)}"
            )
        if len(bases) > 1:
            raise ConfigError(
                f"{len(bases)} plugins implement {hook!r}: {', '.join(names)}; a run needs "
                f"exactly one{hint or ': ' + _leave_out(names)}"
            )
        if yielding and hook in RUN_AT_ONCE:
            raise ConfigError(f"the code of {hook!r} would not run{hint}")

    def _names(self, implementations: Sequence[pluggy.HookImpl]) -> list[str]:
        """Return the names of the plugins of some implementations, in YAML order."""
        order = [name for name, _ in self.plugins]
        names = [i.plugin_name for i in implementations if i.plugin_name in order]
        return sorted(names, key=order.index)

    def _add_one(self, hook: str) -> str:
        """Return what to do when no plugin implements a hook."""
        known = self._offers(hook)
        these = f"one of {', '.join(known)}" if known else "a plugin that does"
        return f"add {these} (`--with NAME`, or `NAME: {{}}` under `plugins` in YAML)"

    def _check_required(self) -> None:
        names = [name for name, _ in self.plugins]
        for name, instance in self.plugins:
            for needed in facts(PluginFacts, type(instance)).requires:
                if needed not in names:
                    raise ConfigError(f"plugin {name!r} needs {needed!r} in this run")
        if wrong := misplaced([(name, type(instance)) for name, instance in self.plugins]):
            raise ConfigError(wrong)

    def _check_conflicts(self) -> None:
        for name, instance in self.plugins:
            for other, also in self.plugins:
                if other != name and (why := conflict(type(instance), other, type(also))):
                    raise ConfigError(
                        f"plugins {name!r} and {other!r} cannot be in the same run: {why}; "
                        f"{_leave_out([name, other])}"
                    )

    def calls(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """Return (plugin's name, function that calls it) in YAML order, for a hook of many plugins.

        Args:
            hook: a run hook that is not in `fedbench.hookspecs.SINGLE`.
        """
        return self._calls[hook]

    def base_of(self, hook: str) -> str:
        """Return the name of the plugin with the base implementation of a single hook."""
        bases = [i for i in getattr(self.hook, hook).get_hookimpls() if not i.wrapper]
        return str(bases[0].plugin_name)

    def implements(self, hook: str) -> bool:
        """Return whether a plugin, rather than core, has the base of a single hook."""
        return any(_has_base(type(instance), hook) for _, instance in self.plugins)

    def collect(self, hook: str, **arguments: Any) -> dict[str, Any]:
        """Call a hook plugin by plugin and join the mappings that the plugins return.

        Raises:
            PluginError: when a plugin does not return a mapping, or two plugins return the same
                key.
        """
        return {key: value for key, (_, value) in self.collect_owned(hook, **arguments).items()}

    def collect_owned(self, hook: str, **arguments: Any) -> dict[str, tuple[str, Any]]:
        """Call a hook as `collect` does, and return each value with its plugin's name."""
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
                    raise PluginError(
                        f"plugins {joined[key][0]!r} and {name!r} both return {key!r}"
                    )
                joined[key] = (name, value)
        return joined


def conflict(cls: type, name: str, other: type) -> str | None:
    """Return why ``cls`` cannot be in one run with the plugin ``name`` of class ``other``."""
    known = (name, *facts(PluginFacts, other).roles)
    reasons = facts(PluginFacts, cls).conflicts
    return next((why for what, why in reasons.items() if what in known), None)


def _leave_out(names: Sequence[str]) -> str:
    """Return how to keep only one of some plugins."""
    choices = " or ".join(f"`--without {name}`" for name in names)
    return f"leave out all but one ({choices}, or delete its line in a full YAML file)"


def _has_base(cls: type, hook: str) -> bool:
    """Return whether a plugin's class implements ``hook`` other than by wrapping it."""
    found = marked(cls)
    return hook in found and not found[hook].fedbench_impl.get("wrapper")


def _watched(name: str, plugin: object, watch: Watch) -> object:
    """Return what to register for a plugin: the plugin itself if nobody watches the run."""
    return plugin if watch is UNWATCHED else Watched(name, plugin, marked(type(plugin)), watch)


def _first(caller: pluggy.HookCaller) -> Callable[..., Any]:
    """Return a function that calls the one implementation behind ``caller``."""

    def call(**arguments: Any) -> Any:
        results = caller(**arguments)
        return results[0] if results else None

    return call
