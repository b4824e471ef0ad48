"""Packages are found one by one: a broken one, or two with one name, harm only who asks for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from fedbench import plugins as module
from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.plugins import RUN_HOOKS, discover


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


@dataclass(frozen=True, eq=False)
class Observer:
    @hookimpl
    def round_end(self, result): ...


@dataclass
class Point:
    """An entry point of a package that is not installed."""

    package: str
    load: Callable[[], object]

    @property
    def name(self) -> str:
        return self.package

    @property
    def value(self) -> str:
        return f"{self.package}.plugin"

    @property
    def dist(self) -> Any:
        return SimpleNamespace(name=self.package, version="1.0")


def offers(**plugins: type) -> object:
    return SimpleNamespace(register_plugins=hookimpl(lambda: plugins))


def broken() -> object:
    raise ImportError("no module named 'left_pad'\nand more")


@pytest.fixture
def packages(monkeypatch):
    """Pretend that packages are installed beside the bundled ones."""
    real = list(module.metadata.entry_points(group="fedbench"))

    def install(*points: Point) -> None:
        monkeypatch.setattr(module.metadata, "entry_points", lambda group: [*points, *real])

    return install


WHY = "not loaded: broken (broken.plugin): ImportError: no module named 'left_pad'"


def test_a_broken_package_leaves_the_others_working(packages, tiny_config, installed):
    packages(Point("broken", broken), Point("fine", lambda: offers(watch=Observer)))
    registry = discover()
    assert registry.get("plugin", "watch").package == "fine"
    assert registry.get("plugin", "sgd").package == "fedbench-toolkit"
    assert registry.get("recipe", "fedavg")
    assert list(registry.failures) == ["broken (broken.plugin)"]


def test_a_broken_package_is_named_only_when_something_unknown_is_asked_for(packages):
    packages(Point("broken", broken))
    registry = discover()
    text = f"no plugin 'sgdd' (did you mean 'sgd'?); {WHY}"
    with pytest.raises(ConfigError, match=exactly(text)):
        registry.get("plugin", "sgdd")


def test_a_package_that_breaks_a_rule_counts_as_broken(packages):
    packages(Point("rude", lambda: offers(watch=Observer, seed=Observer)))
    registry = discover()
    assert "watch" not in registry.names("plugin")
    assert registry.failures == {
        "rude (rude.plugin)": "PluginError: a plugin can't be called 'seed': that is a top-level "
        "config key"
    }


def test_two_packages_with_one_name_are_an_error_only_when_it_is_used(packages):
    packages(
        Point("ours", lambda: offers(watch=Observer, mine=Observer)),
        Point("theirs", lambda: offers(watch=Observer)),
    )
    registry = discover()
    assert registry.get("plugin", "mine").package == "ours"
    assert [e.package for e in registry.all("plugin") if e.name == "watch"] == ["ours", "theirs"]
    text = (
        "plugin 'watch' is provided by ours and theirs; uninstall one or limit the packages "
        "with FEDBENCH_PLUGINS"
    )
    with pytest.raises(ConfigError, match=exactly(text)):
        registry.get("plugin", "watch")


def test_the_packages_can_be_limited(packages, monkeypatch):
    packages(
        Point("ours", lambda: offers(watch=Observer)),
        Point("theirs", lambda: offers(watch=Observer)),
        Point("broken", broken),
    )
    monkeypatch.setenv("FEDBENCH_PLUGINS", "ours, unheard-of")
    registry = discover()
    assert registry.get("plugin", "watch").package == "ours"
    assert registry.get("plugin", "sgd").package == "fedbench-toolkit"
    assert not registry.failures


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("dataset", "digitz", "no data set 'digitz' (did you mean 'digits'?)"),
        ("recipe", "fedavgg", "no method 'fedavgg' (did you mean 'fedavg'?)"),
        ("model", "resnet", "no model 'resnet' (did you mean 'resnet10'?)"),
        ("metric", "accuracies", "no metric 'accuracies' (did you mean 'accuracy'?)"),
    ],
)
def test_an_unknown_name_names_the_nearest(installed, kind, name, text):
    with pytest.raises(ConfigError, match=exactly(text)):
        installed.get(kind, name)


def test_hooks_are_listed_in_the_order_of_a_round(installed):
    assert installed.get("plugin", "fedavg").hooks == ["broadcast", "client_update", "aggregate"]
    assert RUN_HOOKS[-1] == "round_end"
