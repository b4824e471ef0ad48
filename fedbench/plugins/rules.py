"""What a package may register: each rule, with the message that tells the author what to do."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any

from ..errors import PluginError, did_you_mean
from ..hookspecs import HOOK_API, SINGLE, RunHooks
from ..text import summary
from .facts import DatasetFacts, ExecutorFacts, MetricFacts, ModelFacts, PluginFacts, facts

RUN_HOOKS = tuple(n for n in vars(RunHooks) if not n.startswith("_"))

YIELDING = frozenset({"receive_uploads"})
"""Hooks that return an iterator, so that their functions may have a ``yield``."""

RESERVED = frozenset(
    {"method", "recipe", "card", "origin", "seed", "rounds", "data", "model", "executor", "device"}
    | {"accuracy", "metrics", "inference", "plugins", "fedbench", "precision", "failures"}
    | {"clients", "evaluate_every", "stop_at", "stop_time", "without"}
)
"""Top-level config keys; a run plugin cannot have such a name, because ``--set`` accepts both."""

LABELS = {"recipe": "method", "dataset": "data set"}
"""What messages call a kind, where that differs from its name."""

FILES = ("card", "reproduction")
"""Kinds that are YAML files."""

METHODS = {"dataset": "load", "model": "build", "metric": "__call__", "executor": "open"}
"""The method that a class of each kind must have."""

FACTS: Mapping[str, type] = {
    "dataset": DatasetFacts,
    "executor": ExecutorFacts,
    "metric": MetricFacts,
    "model": ModelFacts,
}
"""What a class of each kind states about itself."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")

_REFUSED = {
    "specname": "name the method after its hook",
    "hookwrapper": "use wrapper=True",
    "tryfirst": "the order of the YAML file decides",
    "trylast": "the order of the YAML file decides",
    "optionalhook": "an unknown hook is an error",
}
"""Arguments of ``@hookimpl`` that are not allowed, and why or what to do instead."""


def check_api(module: object, required: bool) -> None:
    """Check the hook API that a package's module was written for, ``fedbench_api``.

    Raises:
        PluginError: when it differs from this fedbench's, or is ``required`` and not stated.
    """
    stated = getattr(module, "fedbench_api", None)
    if stated is None and not required:
        return
    if stated is None:
        raise PluginError(
            "it does not state which hook API it was written for; its author should add the line "
            f"`fedbench_api = {HOOK_API}` to the module that the entry point names"
        )
    if type(stated) is not int:
        raise PluginError(f"fedbench_api must be a whole number like {HOOK_API}, got {stated!r}")
    if stated != HOOK_API:
        what = "fedbench-toolkit" if stated > HOOK_API else "the package"
        raise PluginError(
            f"it was written for hook API {stated}, but this fedbench has {HOOK_API}; "
            f"upgrade {what}"
        )


def check_name(kind: str, name: object) -> None:
    """Check a name, because file names, ``--set`` and tables use it unchanged.

    Raises:
        PluginError: saying which characters are allowed.
    """
    label = LABELS.get(kind, kind)
    if not isinstance(name, str):
        raise PluginError(f"{label} names must be text, got {type(name).__name__}")
    dots = kind not in ("plugin", "metric")  # --set splits at dots
    if len(name) > 64 or not _NAME.fullmatch(name) or ("." in name and not dots):
        inner = ", and dots inside" if dots else ""
        raise PluginError(
            f"{label} names must consist of at most 64 letters, digits, - and _{inner}, "
            f"got {name!r}"
        )
    if kind == "plugin" and name in RESERVED:
        raise PluginError(f"a plugin cannot be called {name!r}: that is a top-level config key")


def check_value(kind: str, name: str, value: object) -> None:
    """Check what is registered under a name.

    Raises:
        PluginError: saying what it must be and what it is.
    """
    if kind == "recipe":
        _check_recipe(name, value)
    elif kind in FILES:
        if not callable(getattr(value, "read_text", None)):
            raise PluginError(f"{kind} {name!r} must be a path, got {type(value).__name__}")
    elif kind == "plugin":
        check_plugin_class(name, value)
    else:
        check_options_class(name, value)
        method, label = METHODS[kind], LABELS.get(kind, kind)
        if not any(method in vars(c) for c in inspect.getmro(value)):  # type: ignore[arg-type]
            raise PluginError(f"{label} {name!r} ({_called(value)}) has no method {method!r}")
        if kind in FACTS:
            stated: object = facts(FACTS[kind], value, f"{label} {name!r}")  # type: ignore[arg-type]
            if isinstance(stated, ExecutorFacts):
                _check_addresses(f"{label} {name!r}", stated.addresses, value)


def _check_recipe(name: str, value: object) -> None:
    from ..types import Recipe  # imports torch, which only packages with recipes should wait for

    if not isinstance(value, Recipe):
        raise PluginError(f"method {name!r} must be a Recipe, got {type(value).__name__}")
    plugins = value.plugins
    if not isinstance(plugins, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Mapping) for k, v in plugins.items()
    ):
        raise PluginError(f"method {name!r}: plugins must map each plugin's name to its options")
    if not all(isinstance(text, str) for text in (value.about, value.source, value.family)):
        raise PluginError(f"method {name!r}: about, source and family must be text")


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


def check_schema(name: str, cls: type) -> None:
    """Check that the options' types can be validated and shown to editors, and never change.

    The search spaces that an author recommends must fit their options.

    Raises:
        PluginError: naming the class and what is wrong.
    """
    from .. import options

    try:
        options.schema(cls)
        changing = list(options.mutable(cls))
    except Exception as error:
        raise PluginError(
            f"the options of {name!r} ({cls.__name__}) cannot be validated: {summary(error)}"
        ) from error
    for option, given, wanted in changing:
        raise PluginError(
            f"option {option!r} of {name!r} ({cls.__name__}) is typed {given}; options never "
            f"change and keep their order: use {wanted}"
        )
    try:
        options.searches(cls)
    except ValueError as error:
        raise PluginError(f"{name!r} ({cls.__name__}): {error}") from error


def marked(cls: type) -> dict[str, Any]:
    """Return the methods marked with ``@hookimpl``, by name, in the order of a round."""
    # A config is resolved from many classes, and inspect's own search would take half of that time.
    held = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    found = {}
    for name, function in held.items():
        if name.startswith("__"):
            continue
        inner = function.__func__ if isinstance(function, staticmethod | classmethod) else function
        if inspect.isfunction(inner) and hasattr(inner, "fedbench_impl"):
            found[name] = function
    return {name: found[name] for name in sorted(found, key=_rank)}


def _rank(name: str) -> tuple[int, str]:
    return (RUN_HOOKS.index(name) if name in RUN_HOOKS else len(RUN_HOOKS), name)


def check_marker(who: str, name: str, function: object) -> dict[str, Any]:
    """Check the arguments that ``@hookimpl`` was given and return them.

    Raises:
        PluginError: for an argument that would change the order of calls or the hook's meaning.
    """
    given: dict[str, Any] = getattr(function, "fedbench_impl", {})
    for argument, why in _REFUSED.items():
        if given.get(argument):
            raise PluginError(f"{who}: {name} uses {argument}; {why}")
    return given


def check_plugin_class(name: str, cls: object) -> None:
    """Check a run plugin's class: options only, known hooks, no hook argument with a default.

    Raises:
        PluginError: naming the plugin, the hook and the rule.
    """
    check_options_class(name, cls)
    assert isinstance(cls, type)
    who = f"plugin {name!r}"
    methods = marked(cls)
    for hook in RUN_HOOKS:
        if hook not in methods:
            check_unmarked(f"{who}: ", hook, inspect.getattr_static(cls, hook, None))
    for hook, function in methods.items():
        _check_hook(who, hook, function)
    if not methods:
        raise PluginError(f"{who} implements no hook; mark methods with @hookimpl")
    stated = facts(PluginFacts, cls, who)
    _check_addresses(who, stated.addresses, cls)
    for what, why in stated.conflicts.items():
        if not what.strip() or not why.strip():
            raise PluginError(
                f"{who}: conflicts must map the name or role of other plugins to the reason, got "
                f"{what!r}: {why!r}"
            )


def _check_addresses(who: str, addresses: tuple[str, ...], cls: object) -> None:
    options = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in addresses:
        if name not in options:
            near = did_you_mean(name, options)
            raise PluginError(f"{who}: addresses names {name!r}, which is not an option{near}")


def check_unmarked(who: str, hook: str, value: object) -> None:
    """Check what has the name of a hook without being one: a value, such as an option, may.

    Raises:
        PluginError: for code that its author must have meant as the hook, but nobody would call.
    """
    if isinstance(value, type):
        return
    if inspect.isfunction(value) or inspect.ismethod(value):
        raise PluginError(
            f"{who}{hook} has the name of a hook but is not marked, so it would never be called; "
            "add @hookimpl or rename it"
        )
    if inspect.isroutine(value) or callable(value) or isinstance(value, property):
        raise PluginError(
            f"{who}{hook} has the name of a hook but is a {type(value).__name__}; make it a plain "
            "function with @hookimpl or rename it"
        )


def _check_hook(who: str, hook: str, function: Any) -> None:
    """Check one marked method of a run plugin's class."""
    if not inspect.isfunction(function):
        raise PluginError(f"{who}: {hook} must be a plain method, without a decorator on it")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{who}: {hook} must not be async, because nobody would await it")
    given = check_marker(who, hook, function)
    if hook not in RUN_HOOKS:
        near = did_you_mean(hook, RUN_HOOKS)
        raise PluginError(f"{who} implements unknown hook {hook!r}{near}")
    if given.get("wrapper") and hook not in SINGLE:
        raise PluginError(f"{who} wraps {hook!r}; only {', '.join(sorted(SINGLE))} can be wrapped")
    _check_yield(who, hook, function, bool(given.get("wrapper")))
    known = set(inspect.signature(getattr(RunHooks, hook)).parameters) - {"self"}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise PluginError(f"{who}: {hook} takes {parameter}; name the arguments it needs")
        if parameter.default is not parameter.empty:
            raise PluginError(
                f"{who}: argument {parameter.name!r} of {hook} has a default; "
                "hooks never pass such an argument, so remove the default"
            )
        if parameter.name not in known:
            raise PluginError(
                f"{who}: {hook} has no argument {parameter.name!r}"
                f"{did_you_mean(parameter.name, known)}"
            )


def _check_yield(who: str, hook: str, function: Any, wrapper: bool) -> None:
    """Check that a wrapper has a ``yield``, and that code which would never run has none.

    What a single hook without ``wrapper=True`` does with its ``yield`` is for the run to say, which
    knows the other implementation.
    """
    if wrapper and not inspect.isgeneratorfunction(function):
        raise PluginError(
            f"{who}: {hook} has wrapper=True but no `yield`; write `result = yield` where the "
            "wrapped implementation runs and return the result, or leave wrapper=True out"
        )
    if hook not in SINGLE and hook not in YIELDING and inspect.isgeneratorfunction(function):
        raise PluginError(
            f"{who}: {hook} has a `yield`, so its code would not run when it is called; only "
            f"wrappers of {', '.join(sorted(SINGLE))} may have one"
        )


def _called(cls: object) -> str:
    return getattr(cls, "__name__", type(cls).__name__)
