"""The rules that plugins must keep, each with the error that tells an author what to do.

This file is over 400 lines long because every rule needs a plugin that breaks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import partial, partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal

import pytest
import torch
from fedbench_baselines.fedprox import FedProx
from pydantic import Field

from fedbench.config.resolve import resolve
from fedbench.config.yamlfile import Document
from fedbench.errors import ConfigError, PluginError
from fedbench.hookspecs import DiscoveryHooks, RunHooks, hookimpl
from fedbench.plugins.hooks import RunPlugins
from fedbench.types import Recipe, ServerUpdate
from fedbench.watching import UNWATCHED, Watch


def exactly(text: str) -> str:
    """Match ``text`` and nothing more, apart from the note that a client's turn adds."""
    return rf"^{re.escape(text)}(\nin round \d+, client \d+)?$"


# --- one class at a time -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Observer:
    @hookimpl
    def round_end(self, result): ...


@dataclass(eq=False)
class NotFrozen:
    @hookimpl
    def round_end(self, result): ...


@dataclass(frozen=True)
class ByValue:
    @hookimpl
    def round_end(self, result): ...


class NoDataclass:
    @hookimpl
    def round_end(self, result): ...


@dataclass(frozen=True, eq=False)
class UnknownHook:
    @hookimpl
    def aggregat(self, results): ...


@dataclass(frozen=True, eq=False)
class Specname:
    @hookimpl(specname="round_end")
    def observe(self, result): ...


@dataclass(frozen=True, eq=False)
class First:
    @hookimpl(tryfirst=True)
    def round_end(self, result): ...


@dataclass(frozen=True, eq=False)
class Last:
    @hookimpl(trylast=True)
    def round_end(self, result): ...


@dataclass(frozen=True, eq=False)
class Optional:
    @hookimpl(optionalhook=True)
    def round_ends(self, result): ...


@dataclass(frozen=True, eq=False)
class Static:
    @staticmethod
    @hookimpl
    def round_end(result): ...


@dataclass(frozen=True, eq=False)
class Keywords:
    @hookimpl
    def round_end(self, result, **more): ...


@dataclass(frozen=True, eq=False)
class RequiresText:
    requires: ClassVar[str] = "mean"

    @hookimpl
    def round_end(self, result): ...


@dataclass(frozen=True, eq=False)
class Defaulted:
    @hookimpl
    def round_end(self, result, directory=None): ...


@dataclass(frozen=True, eq=False)
class UnknownArgument:
    @hookimpl
    def server_update(self, ctx, state, report): ...


@dataclass(frozen=True, eq=False)
class WrapsList:
    @hookimpl(wrapper=True)
    def broadcast(self):
        return (yield)


@dataclass(frozen=True, eq=False)
class OldWrapper:
    @hookimpl(hookwrapper=True)
    def client_update(self, ctx):
        yield


@dataclass(frozen=True, eq=False)
class NoHook:
    def round_end(self, result): ...


class Unmarked(FedProx):
    """Overrides a hook, and so switches it off."""

    def local_loss(self, ctx, batch, output): ...


@dataclass(frozen=True, eq=False)
class UnmarkedWrapper(Observer):
    def client_update(self, ctx):
        return (yield)


class Mixin:
    def transform(self, inputs): ...


@dataclass(frozen=True, eq=False)
class Inherits(Mixin, Observer):
    """Gets a method from elsewhere."""


@dataclass(frozen=True, eq=False)
class UnmarkedStatic(Observer):
    @staticmethod
    def aggregate(results): ...


@dataclass(frozen=True, eq=False)
class Property(Observer):
    @property
    def partition(self): ...


@dataclass(frozen=True, eq=False)
class Partial(Observer):
    broadcast = partialmethod(Observer.round_end, None)


@dataclass(frozen=True, eq=False, slots=True)
class NamedLikeHooks(Observer):
    """An option, an inner class, or nothing at all may have the name of a hook."""

    partition: str = "even"
    aggregate: ClassVar[str] = "mean"
    local_loss = None

    class transform: ...


@dataclass(frozen=True, eq=False)
class NoYield:
    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        return True


@dataclass(frozen=True, eq=False)
class Yields:
    @hookimpl
    def after_backward(self, ctx):
        yield


@dataclass(frozen=True, eq=False)
class Async:
    @hookimpl
    async def round_end(self, result): ...


@dataclass(frozen=True, eq=False)
class NoMethod:
    """Has options only."""


@dataclass(frozen=True, eq=False)
class Net:
    def build(self, input_shape, num_classes): ...


@dataclass(frozen=True, eq=False)
class Unresolved:
    width: Nowhere = 3  # noqa: F821

    def build(self, input_shape, num_classes): ...


UNMARKED = (
    "has the name of a hook but is not marked, so it would never be called; add @hookimpl or "
    "rename it"
)
NOT_PLAIN = (
    "has the name of a hook but is a {}; make it a plain function with @hookimpl or rename it"
)
OPTIONS_ONLY = (
    "must be @dataclass(frozen=True, eq=False): plugins hold options only; what lasts between "
    "rounds belongs in the server's or client's state"
)


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (NotFrozen, f"'x' (NotFrozen) {OPTIONS_ONLY}"),
        (ByValue, f"'x' (ByValue) {OPTIONS_ONLY}"),
        (NoDataclass, f"'x' must be a dataclass of options, got {NoDataclass!r}"),
        (UnknownHook, "plugin 'x' implements unknown hook 'aggregat' (did you mean 'aggregate'?)"),
        (Specname, "plugin 'x': observe uses specname; name the method after its hook"),
        (First, "plugin 'x': round_end uses tryfirst; the order of the YAML file decides"),
        (Last, "plugin 'x': round_end uses trylast; the order of the YAML file decides"),
        (Optional, "plugin 'x': round_ends uses optionalhook; an unknown hook is an error"),
        (Static, "plugin 'x': round_end must be a plain method, without a decorator on it"),
        (Keywords, "plugin 'x': round_end takes **more; name the arguments it needs"),
        (
            RequiresText,
            "plugin 'x': class attribute requires must be tuple[str, ...], got 'mean'",
        ),
        (
            Defaulted,
            "plugin 'x': argument 'directory' of round_end has a default; hooks never pass such "
            "an argument, so remove the default",
        ),
        (
            UnknownArgument,
            "plugin 'x': server_update has no argument 'report' (did you mean 'reports'?)",
        ),
        (
            WrapsList,
            "plugin 'x' wraps 'broadcast'; only aggregate, client_update, duration, partition, "
            "schedule, select_clients, train can be wrapped",
        ),
        (OldWrapper, "plugin 'x': client_update uses hookwrapper; use wrapper=True"),
        (NoHook, f"plugin 'x': round_end {UNMARKED}"),
        (Unmarked, f"plugin 'x': local_loss {UNMARKED}"),
        (UnmarkedWrapper, f"plugin 'x': client_update {UNMARKED}"),
        (Inherits, f"plugin 'x': transform {UNMARKED}"),
        (UnmarkedStatic, f"plugin 'x': aggregate {NOT_PLAIN.format('staticmethod')}"),
        (Property, f"plugin 'x': partition {NOT_PLAIN.format('property')}"),
        (Partial, f"plugin 'x': broadcast {NOT_PLAIN.format('partialmethod')}"),
        (NoMethod, "plugin 'x' implements no hook; mark methods with @hookimpl"),
        (
            NoYield,
            "plugin 'x': client_update has wrapper=True but no `yield`; write `result = yield` "
            "where the wrapped implementation runs and return the result, or leave wrapper=True "
            "out",
        ),
        (
            Yields,
            "plugin 'x': after_backward has a `yield`, so its code would not run when it is "
            "called; only wrappers of aggregate, client_update, duration, partition, schedule, "
            "select_clients, train may have one",
        ),
        (Async, "plugin 'x': round_end must not be async, because nobody would await it"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_class_that_breaks_a_rule_is_refused_when_it_registers(registry, add, cls, text):
    before = registry.names("plugin")
    with pytest.raises(PluginError, match=exactly(text)):
        add(x=cls)
    assert registry.names("plugin") == before


@dataclass(frozen=True)
class Inner:
    names: set[str] = field(default_factory=set)


@pytest.mark.parametrize(
    ("hint", "given", "wanted"),
    [
        (list[str], "list[str]", "tuple[str, ...]"),
        (list, "list", "tuple[str, ...]"),
        (list[int] | None, "list[int]", "tuple[int, ...]"),
        (Annotated[list[float], Field(min_length=1)], "list[float]", "tuple[float, ...]"),
        (tuple[list[int], ...], "list[int]", "tuple[int, ...]"),
        (set[str], "set[str]", "tuple[str, ...]"),
        (frozenset[str], "frozenset[str]", "tuple[str, ...]"),
        (dict[str, list[str]], "list[str]", "tuple[str, ...]"),
        (Mapping[str, list[int]], "list[int]", "tuple[int, ...]"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["plugins", "models"])
def test_an_option_that_could_change_says_which_type_to_use(registry, kind, hint, given, wanted):
    base = {"plugins": Observer, "models": Net}[kind]
    cls = make_dataclass("Mine", [("names", hint)], bases=(base,), frozen=True, eq=False)
    module = SimpleNamespace(**{f"register_{kind}": hookimpl(lambda: {"x": cls})})
    text = (
        f"option 'names' of 'x' (Mine) is typed {given}; options never change and keep their "
        f"order: use {wanted}"
    )
    with pytest.raises(PluginError, match=exactly(text)):
        registry.add(module, "other")


def test_nested_options_cannot_change_either(add):
    cls = make_dataclass("Mine", [("inner", Inner)], bases=(Observer,), frozen=True, eq=False)
    with pytest.raises(PluginError, match=r"option 'inner.names' of 'x' \(Mine\) is typed set"):
        add(x=cls)


@pytest.mark.parametrize("hint", [tuple[str, ...], dict[str, float], Literal["a"], Path])
def test_options_of_types_that_stay_as_they_are(add, hint):
    add(x=make_dataclass("Mine", [("names", hint)], bases=(Observer,), frozen=True, eq=False))


def test_what_is_no_code_may_have_the_name_of_a_hook(registry, add):
    add(x=NamedLikeHooks)
    assert registry.get("plugin", "x").hooks == ["round_end"]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: {"x": Observer}, UNMARKED),
        (partial(dict, x=Observer), NOT_PLAIN.format("partial")),
        (hookimpl(partial(dict, x=Observer)), NOT_PLAIN.format("partial")),
    ],
    ids=["function", "callable", "marked callable"],
)
def test_a_function_that_nobody_would_call_at_discovery(registry, function, text):
    module = SimpleNamespace(register_plugins=function)
    with pytest.raises(PluginError, match=exactly(f"register_plugins {text}")):
        registry.add(module, "other")
    registry.add(SimpleNamespace(register_plugins={"x": Observer}), "data under that name")


@pytest.mark.parametrize("name", ["seed", "rounds", "plugins", "accuracy"])
def test_a_plugin_cannot_have_the_name_of_a_config_key(add, name):
    text = f"a plugin cannot be called {name!r}: that is a top-level config key"
    with pytest.raises(PluginError, match=exactly(text)):
        add(**{name: Observer})


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../x", "a\\b", "a\nb", "a b", "-a", "é", "a.b", "x" * 65, "a\x1b[1m"],
)
def test_a_plugin_has_a_name_that_files_and_flags_can_contain(add, name):
    text = f"plugin names must consist of at most 64 letters, digits, - and _, got {name!r}"
    with pytest.raises(PluginError, match=exactly(text)):
        add(**{name: Observer})


def test_other_names_may_have_dots_inside(registry):
    def offer(name: object) -> object:
        return SimpleNamespace(register_models=hookimpl(lambda: {name: Net}))

    registry.add(offer("net-1.5"), "other")
    assert "net-1.5" in registry.names("model")
    for name in ("net.", "a..b", ".net"):
        text = (
            "model names must consist of at most 64 letters, digits, - and _, and dots inside, got "
            f"{name!r}"
        )
        with pytest.raises(PluginError, match=exactly(text)):
            registry.add(offer(name), "other")
    with pytest.raises(PluginError, match=exactly("model names must be text, got int")):
        registry.add(offer(3), "other")


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("datasets", NoMethod, "data set 'x' (NoMethod) has no method 'load'"),
        ("models", NoMethod, "model 'x' (NoMethod) has no method 'build'"),
        ("metrics", NoMethod, "metric 'x' (NoMethod) has no method '__call__'"),
        ("executors", NoMethod, "executor 'x' (NoMethod) has no method 'open'"),
        ("recipes", {"plugins": {}}, "method 'x' must be a Recipe, got dict"),
        (
            "recipes",
            Recipe(plugins={"sgd": None}, about="", source=""),
            "method 'x': plugins must map each plugin's name to its options",
        ),
        (
            "recipes",
            Recipe(plugins={}, about=1, source=""),
            "method 'x': about, source and family must be ",
        ),
        ("cards", "card.yaml", "card 'x' must be a path, got str"),
        ("models", Unresolved, "the options of 'x' (Unresolved) cannot be validated: "),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_what_is_registered_is_what_its_kind_needs(registry, kind, value, text):
    module = SimpleNamespace(**{f"register_{kind}": hookimpl(lambda: {"x": value})})
    with pytest.raises(PluginError) as caught:
        registry.add(module, "other")
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("offered", [None, [], 3, "sgd"], ids=repr)
def test_a_discovery_hook_returns_a_mapping(registry, offered):
    module = SimpleNamespace(register_plugins=hookimpl(lambda: offered))
    kind = type(offered).__name__
    text = f"register_plugins returned {kind}; return a mapping, {{}} for nothing"
    with pytest.raises(PluginError, match=exactly(text)):
        registry.add(module, "other")


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        (2, "it was written for hook API 2, but this fedbench has 1; upgrade fedbench-toolkit"),
        (0, "it was written for hook API 0, but this fedbench has 1; upgrade the package"),
        ("1", "fedbench_api must be a whole number like 1, got '1'"),
        (True, "fedbench_api must be a whole number like 1, got True"),
    ],
)
def test_a_module_of_another_hook_api_is_refused(registry, stated, text):
    module = SimpleNamespace(
        fedbench_api=stated, register_plugins=hookimpl(lambda: {"x": Observer})
    )
    with pytest.raises(PluginError, match=exactly(text)):
        registry.add(module, "other")


def metric(**attributes: Any) -> type:
    """Return the class of a metric that states ``attributes``."""
    found = type("Share", (), {"__call__": lambda self, scores, labels: 0.5, **attributes})
    return dataclass(frozen=True, eq=False)(found)


NO_DIRECTION = (
    " needs the class attribute higher_is_better (bool): whether a higher number is better"
)
NO_UNIT = (
    " needs the class attribute unit (percent | plain): percent for a fraction of 1 that is shown "
    "as a percentage, plain for any other number"
)
DIRECTION, UNIT = {"higher_is_better": True}, {"unit": "percent"}


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        (UNIT, NO_DIRECTION),
        (UNIT | {"higher_is_better": 1}, ": class attribute higher_is_better must be bool, got 1"),
        (DIRECTION, NO_UNIT),
        (DIRECTION | {"unit": "%"}, ": class attribute unit must be percent | plain, got '%'"),
        (DIRECTION | UNIT | {"__annotations__": {"unit": str}}, NO_UNIT),
    ],
    ids=["no direction", "a number", "no unit", "unknown", "an option"],
)
def test_a_metric_states_direction_and_unit(registry, stated, text):
    module = SimpleNamespace(register_metrics=hookimpl(lambda: {"x": metric(**stated)}))
    with pytest.raises(PluginError, match=exactly(f"metric 'x'{text}")):
        registry.add(module, "other")


def test_data_sets_models_and_metrics_are_dataclasses_of_options_too(registry):
    module = SimpleNamespace(register_models=hookimpl(lambda: {"net": ByValue}))
    with pytest.raises(PluginError, match=r"'net' \(ByValue\) must be @dataclass\(frozen=True"):
        registry.add(module, "other")


def test_an_unknown_discovery_hook_is_refused(registry):
    module = SimpleNamespace(register_pluggins=hookimpl(lambda: {"x": 1}))
    with pytest.raises(PluginError, match="unknown hook 'register_pluggins'"):
        registry.add(module, "other")


def test_every_hook_is_documented():
    hooks = {**vars(RunHooks), **vars(DiscoveryHooks)}
    for name, hook in hooks.items():
        if not name.startswith("_"):
            assert hook.__doc__, name


# --- the plugins of one run ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Base:
    """The minimum that a run needs."""

    @hookimpl
    def partition(self): ...

    @hookimpl
    def select_clients(self): ...

    @hookimpl
    def train(self): ...

    @hookimpl
    def aggregate(self):
        return "base"

    @hookimpl
    def local_loss(self):
        return {}


@dataclass(frozen=True, eq=False)
class Aggregator:
    @hookimpl
    def aggregate(self): ...


@dataclass(frozen=True, eq=False)
class NoAggregator:
    @hookimpl
    def partition(self): ...

    @hookimpl
    def select_clients(self): ...

    @hookimpl
    def train(self): ...

    @hookimpl
    def local_loss(self): ...


@dataclass(frozen=True, eq=False)
class NeedsBase:
    requires: ClassVar[tuple[str, ...]] = ("base",)

    @hookimpl
    def round_end(self): ...


NOBODY = "a plugin that does"
ADD = "add {} (`--with NAME`, or `NAME: {{}}` under `plugins` in YAML)"


def test_no_base_implementation_of_a_single_hook():
    text = f"no plugin implements 'aggregate'; a run needs exactly one: {ADD.format(NOBODY)}"
    with pytest.raises(ConfigError, match=exactly(text)):
        RunPlugins([("rest", NoAggregator())])


def test_the_installed_plugins_that_would_do_are_named(registry, add, tiny_config):
    add(tag=Tag)  # a wrapper would not
    for hook, without in (
        ("aggregate", "mean"),
        ("select_clients", "uniform"),
        ("train", "sgd"),
        ("local_loss", "cross_entropy"),
    ):
        known = registry.implementing(hook)
        assert "tag" not in known
        with pytest.raises(ConfigError) as caught:
            tiny_config(registry, without=[without])
        assert f"no plugin implements {hook!r}; " in str(caught.value)
        assert str(caught.value).endswith(ADD.format(f"one of {', '.join(known)}"))
    assert {"cross_entropy", "fedprox", "moon"} <= set(known)


def test_two_base_implementations_are_named_in_yaml_order():
    text = (
        "2 plugins implement 'aggregate': base, again; a run needs exactly one: leave out all but "
        "one (`--without base` or `--without again`, or delete its line in a full YAML file)"
    )
    with pytest.raises(ConfigError, match=exactly(text)):
        RunPlugins([("base", Base()), ("again", Aggregator())])


def test_a_wrapper_is_not_a_base_implementation():
    text = f"no plugin implements 'aggregate'; a run needs exactly one: {ADD.format(NOBODY)}"
    with pytest.raises(ConfigError, match=exactly(text)):
        RunPlugins([("rest", NoAggregator()), ("wrap", Tag())])


@dataclass(frozen=True, eq=False)
class Broken:
    """Was meant to wrap."""

    @hookimpl
    def train(self, ctx, work):
        trained = yield
        return trained


@dataclass(frozen=True, eq=False)
class NoTrainer(Base):
    train = None


YIELD = "'broken' has a `yield`: if it is meant as a wrapper, mark it @hookimpl(wrapper=True)"


def test_a_second_implementation_that_was_meant_as_a_wrapper():
    text = f"2 plugins implement 'train': base, broken; a run needs exactly one; {YIELD}"
    with pytest.raises(ConfigError, match=exactly(text)):
        RunPlugins([("base", Base()), ("broken", Broken())])


@pytest.mark.parametrize("watch", [UNWATCHED, Watch()], ids=["", "watched"])
def test_an_only_implementation_whose_code_would_not_run(watch):
    text = f"the code of 'train' would not run; {YIELD}"
    with pytest.raises(ConfigError, match=exactly(text)):
        RunPlugins([("rest", NoTrainer()), ("broken", Broken())], watch)


def test_what_leaves_out_one_of_two_works(add, registry, tiny_config):
    add(again=Aggregator)
    with pytest.raises(ConfigError, match=r"again: implements 'aggregate', and so does 'mean'"):
        tiny_config(registry, extra={"again": {}})
    config = tiny_config(registry, extra={"again": {}}, without=["mean"])
    full = config.to_dict()
    full["plugins"]["mean"] = {}
    with pytest.raises(ConfigError, match="leave out one of the two"):
        resolve(registry, file=Document(full, "mine.yaml"))
    del full["plugins"]["mean"]
    assert resolve(registry, file=Document(full, "mine.yaml")).plugins == config.plugins


@dataclass(frozen=True, eq=False)
class Turn:
    """A base of ``client_update`` and a wrapper of ``train``."""

    @hookimpl
    def client_update(self, ctx):
        return "mine"

    @hookimpl(wrapper=True)
    def train(self):
        return f"wrapped {(yield)}"


@dataclass(frozen=True, eq=False)
class Around:
    @hookimpl(wrapper=True)
    def client_update(self):
        return f"around {(yield)}"


def test_core_trains_once_unless_a_plugin_takes_the_turn_itself():
    class Context:
        trained = 0

        def train(self):
            self.trained += 1

    ctx = Context()
    plugins = RunPlugins([("around", Around()), ("base", Base())])
    assert plugins.hook.client_update(ctx=ctx) == "around True"
    assert ctx.trained == 1
    plugins = RunPlugins([("around", Around()), ("base", Base()), ("turn", Turn())])
    assert plugins.hook.client_update(ctx=ctx) == "around mine"
    assert ctx.trained == 1
    assert plugins.base_of("client_update") == "turn"
    assert plugins.hook.train(ctx=ctx, work=None) == "wrapped None"


def test_a_required_plugin_that_is_missing():
    with pytest.raises(ConfigError, match=exactly("plugin 'late' needs 'base' in this run")):
        RunPlugins([("other", Base()), ("late", NeedsBase())])


def test_a_required_plugin_comes_first():
    with pytest.raises(ConfigError, match=exactly("plugin 'late' needs 'base' before it")):
        RunPlugins([("late", NeedsBase()), ("base", Base())])
    RunPlugins([("base", Base()), ("late", NeedsBase())])


CALLS: list[str] = []


@dataclass(frozen=True, eq=False)
class Tag:
    """Records when it is called."""

    tag: str = "tag"

    @hookimpl(wrapper=True)
    def aggregate(self) -> Iterator[Any]:
        CALLS.append(f"{self.tag} before")
        result = yield
        CALLS.append(f"{self.tag} after")
        return f"{self.tag}({result})"

    @hookimpl
    def broadcast(self):
        return {self.tag: self.tag}


def test_yaml_order_is_calling_order_and_the_first_wrapper_is_the_outermost():
    CALLS.clear()
    plugins = RunPlugins([("a", Tag("a")), ("base", Base()), ("c", Tag("c"))])
    assert plugins.hook.aggregate(ctx=None, state=None, results=None) == "a(c(base))"
    assert CALLS == ["a before", "c before", "c after", "a after"]
    assert list(plugins.collect("broadcast", ctx=None, state=None)) == ["a", "c"]
    assert [name for name, _ in plugins.calls("broadcast")] == ["a", "c"]


def test_a_list_hook_returns_a_mapping():
    @dataclass(frozen=True, eq=False)
    class Forgot:
        @hookimpl
        def broadcast(self): ...

    plugins = RunPlugins([("base", Base()), ("forgot", Forgot())])
    text = "plugin 'forgot': broadcast returned NoneType; return a mapping, {} for nothing"
    with pytest.raises(PluginError, match=exactly(text)):
        plugins.collect("broadcast", ctx=None, state=None)


# --- two plugins, one key ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Broadcasts:
    @hookimpl
    def broadcast(self):
        return {"shared": torch.zeros(1)}


@dataclass(frozen=True, eq=False)
class Keeps:
    @hookimpl
    def init_server(self):
        return {"shared": torch.zeros(1)}


@dataclass(frozen=True, eq=False)
class Writes:
    @hookimpl
    def server_update(self):
        return ServerUpdate(entries={"shared": torch.zeros(1)})


@dataclass(frozen=True, eq=False)
class Loses:
    @hookimpl
    def local_loss(self, output):
        return {"shared": output.logits.mean() * 0}


@dataclass(frozen=True, eq=False)
class Uploads:
    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        result = yield
        ctx.upload("shared", torch.zeros(1))
        return result


@dataclass(frozen=True, eq=False)
class Measures:
    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        result = yield
        ctx.metric("shared", 1.0)
        return result


@dataclass(frozen=True, eq=False)
class MeasuresOnServer:
    @hookimpl
    def server_update(self):
        return ServerUpdate(metrics={"shared": 1.0})


@pytest.mark.parametrize(
    ("one", "two", "text"),
    [
        (Broadcasts, Broadcasts, "plugins 'one' and 'two' both return 'shared'"),
        (Keeps, Keeps, "plugins 'one' and 'two' both return 'shared'"),
        (Keeps, Writes, "plugin 'two' writes 'shared', which belongs to 'one'"),
        (Writes, Writes, "plugin 'two' writes 'shared', which belongs to 'one'"),
        (Loses, Loses, "plugins 'one' and 'two' both return loss term 'shared'"),
        (Uploads, Uploads, "two plugins upload 'shared' in round 1, client 0"),
        (Measures, Measures, "metric 'shared' is reported twice in round 1, client 0"),
        (Measures, MeasuresOnServer, "plugin 'two': metric 'shared' is already reported"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_two_plugins_cannot_use_the_same_key(add, run_tiny, one, two, text):
    add(one=one, two=two)
    run_tiny(rounds=1, extra={"one": {}})
    with pytest.raises(PluginError, match=exactly(text)):
        run_tiny(rounds=1, extra={"one": {}, "two": {}})
