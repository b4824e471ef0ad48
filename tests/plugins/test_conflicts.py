"""Plugins that cannot work together are refused before the run, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from fedbench import hookimpl, resolve
from fedbench.errors import ConfigError, PluginError

ROLE = "personal model"
WHY = "one rule for the test model"


@dataclass(frozen=True, eq=False)
class Plain:
    """Says nothing about others."""

    @hookimpl
    def round_end(self): ...


@dataclass(frozen=True, eq=False)
class Personal(Plain):
    """Refuses every other plugin of its role."""

    roles: ClassVar[tuple[str, ...]] = (ROLE, "observer")
    conflicts: ClassVar[dict[str, str]] = {ROLE: WHY}


@dataclass(frozen=True, eq=False)
class Unaware(Plain):
    """Has the role and refuses nobody."""

    roles: ClassVar[tuple[str, ...]] = (ROLE,)


@dataclass(frozen=True, eq=False)
class Picky(Plain):
    """Refuses one plugin by name."""

    conflicts: ClassVar[dict[str, str]] = {"plain": "both write the same file"}


@pytest.fixture
def run(registry, add):
    """Resolve FedAvg with some of the plugins."""
    add(plain=Plain, mine=Personal, yours=Personal, unaware=Unaware, picky=Picky)
    return lambda *plus, **more: resolve(registry, "fedavg", plus=plus, **more)


@pytest.mark.parametrize(
    ("plus", "why"),
    [
        (("picky", "plain"), "both write the same file"),
        (("plain", "picky"), "both write the same file"),
        (("mine", "yours"), WHY),
        (("mine", "unaware"), WHY),
        (("unaware", "mine"), WHY),
    ],
    ids=str,
)
def test_a_conflict_is_refused_whichever_of_the_two_states_it(run, plus, why):
    with pytest.raises(ConfigError) as caught:
        run(*plus)
    text = str(caught.value)
    assert all(f"{name!r}" in text for name in plus)
    assert f" cannot be in the same run: {why}; leave out all but one (`--without " in text


def test_a_plugin_does_not_conflict_with_itself_or_with_other_roles(run):
    assert "mine" in run("mine", "plain").plugins
    assert "picky" in run("picky", "mine").plugins
    assert "unaware" in run("unaware", "plain").plugins


def test_leaving_one_out_is_the_way_out(registry, run):
    from fedbench.config.yamlfile import Document

    file = Document({"plugins": {"mine": {}}}, "mine.yaml")
    assert "yours" in run("yours", file=file, without=["mine"]).plugins


@pytest.mark.parametrize(
    ("attribute", "value", "error"),
    [
        ("conflicts", ("moon",), "class attribute conflicts must be Mapping[str, str], got"),
        ("conflicts", {"moon": " "}, "conflicts must map the name or role of other plugins to the"),
        ("roles", "server step", "class attribute roles must be tuple[str, ...], got"),
    ],
)
def test_a_wrong_statement_is_refused_when_it_registers(add, attribute, value: Any, error):
    wrong = type("Wrong", (Plain,), {attribute: value})
    with pytest.raises(PluginError) as caught:
        add(wrong=wrong)
    assert str(caught.value).startswith(f"plugin 'wrong': {error}")
