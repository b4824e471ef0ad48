"""Search spaces: what an option's author recommends to try, checked against the option."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fedbench import Search, hookimpl, options
from fedbench.errors import PluginError
from fedbench.plugins.registry import Registry


@dataclass(frozen=True, eq=False)
class Spaces:
    lr: Annotated[float, Field(gt=0), Search(low=1e-4, high=1e-1, scale="log")] = 0.01
    mu: Annotated[float, Field(ge=0), Search(choices=(0.01, 0.1, 1.0))] = 0.1
    epochs: Annotated[int, Field(ge=1), Search(low=1, high=10)] = 5
    rule: Annotated[Literal["a", "b"], Search(choices=("a", "b"))] = "a"
    nesterov: Annotated[bool, Search(choices=(False, True))] = False
    bound: Annotated[float, Field(gt=0), Search(low=0.5, high=2)] | None = None
    sizes: Annotated[tuple[int, ...], Search(choices=((1,), (2, 3)))] = (1,)
    other: float = 1.0


def test_an_option_may_carry_the_space_that_its_author_recommends() -> None:
    assert {o.name: o.search for o in options.describe(Spaces)} == {
        "lr": "0.0001 to 0.1, log",
        "mu": "0.01, 0.1, 1.0",
        "epochs": "1 to 10",
        "rule": "a, b",
        "nesterov": "false, true",
        "bound": "0.5 to 2",
        "sizes": "(1,), (2, 3)",
        "other": "",
    }
    found = options.searches(Spaces)
    assert (found["lr"].low, found["lr"].high, found["lr"].scale) == (1e-4, 1e-1, "log")
    assert found["mu"].choices == (0.01, 0.1, 1.0)
    assert options.dump(options.build(Spaces, {"lr": 0.02}, str))["lr"] == 0.02


FLOAT = Annotated[float, Field(gt=0, le=1)]


@pytest.mark.parametrize(
    ("hint", "why"),
    [
        (Annotated[FLOAT, Search()], "give numbers for low and high, or choices"),
        (Annotated[FLOAT, Search(low=0.1)], "give numbers for low and high, or choices"),
        (Annotated[FLOAT, Search(low=0.5, high=0.5)], "low 0.5 must be less than high 0.5"),
        (Annotated[FLOAT, Search(low=0, high=1, scale="log")], "a log scale needs low > 0"),
        (Annotated[FLOAT, Search(low=0, high=1)], "0 is not valid for it: input should be greater"),
        (Annotated[FLOAT, Search(low=0.1, high=2)], "2 is not valid for it: input should be less"),
        (Annotated[FLOAT, Search(choices=(0.1, 1.5))], "1.5 is not valid for it: input should be"),
        (Annotated[FLOAT, Search(choices=(0.1,))], "choices must be a tuple of two or more diff"),
        (Annotated[FLOAT, Search(choices=(0.1, 0.1))], "choices must be a tuple of two or more d"),
        (Annotated[FLOAT, Search(choices=[0.1, 0.2])], "choices must be a tuple of two or more d"),
        (
            Annotated[FLOAT, Search(low=0.1, high=0.2, choices=(0.1, 0.2))],
            "give either choices or low and high",
        ),
        (
            Annotated[FLOAT, Search(low=0.1, high=0.2), Search(choices=(0.1, 0.2))],
            "there are two",
        ),
        (Annotated[FLOAT, Search(low=0.1, high=1, scale="cubic")], "scale must be linear or log"),
        (Annotated[float, Search(low=0, high=float("inf"))], "inf is not a number that a run can"),
        (Annotated[int, Search(low=0.5, high=2)], "0.5 is not valid for it: input should be a "),
        (Annotated[str, Search(low=1, high=2)], "1 is not valid for it: input should be a valid"),
        (Annotated[bool, Search(choices=(0, 1))], "0 is not valid for it: input should be a valid"),
        (Annotated[Literal["a"], Search(choices=("a", "b"))], "'b' is not valid for it: input "),
        (Annotated[float, Search(choices=(1.0, {2.0}))], "{2.0} is not valid for it"),
    ],
)
def test_a_space_that_does_not_fit_its_option_is_refused_when_the_plugin_registers(
    registry: Registry, hint: Any, why: str
) -> None:
    class Odd:
        """A plugin with one option."""

        __annotations__ = {"rate": hint}
        rate = 1

        @hookimpl
        def round_end(self, result: object) -> None:
            """Do nothing."""

    made = dataclass(frozen=True, eq=False)(Odd)
    module = SimpleNamespace(register_plugins=hookimpl(lambda: {"odd": made}))
    with pytest.raises(PluginError) as caught:
        registry.add(module, "tests")
    start = f"'odd' (Odd): the search space of option 'rate': {why}"
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("kind", ["plugin", "dataset", "model", "metric", "executor"])
def test_the_spaces_of_everything_installed_fit(installed: Registry, kind: str) -> None:
    for entry in installed.all(kind):
        options.searches(entry.value)


def test_the_options_that_papers_tune_have_one(installed: Registry) -> None:
    expected = {
        "fedprox": "mu",
        "moon": "mu",
        "fedproto": "mu",
        "fpl": "temperature",
        "sgd": "lr",
        "feddyn": "alpha",
        "fedadam": "lr",
    }
    for plugin, option in expected.items():
        assert option in options.searches(installed.get("plugin", plugin).value), plugin
