"""What a class states about itself in class attributes is typed, checked and read in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from fedbench import Dataset, hookimpl, resolve
from fedbench.errors import PluginError
from fedbench.plugins.facts import DatasetFacts, facts
from fedbench.plugins.registry import Registry
from fedbench.testing import TinyData, TinyModel


@dataclass(frozen=True, eq=False)
class Plain:
    """A data set that states nothing about itself."""

    size: int = 32  # an option, not a fact

    def load(self, root: Path) -> Dataset:
        """Return tiny data."""
        return TinyData().load(root)


class NotTheDefault(Plain):
    """A data set that states that it is not the default."""

    default: ClassVar[bool] = False


class Wrong(Plain):
    """A data set that states a value of the wrong type."""

    default: ClassVar[Any] = "no"


def register(registry: Registry, **datasets: type) -> None:
    registry.add(SimpleNamespace(register_datasets=hookimpl(lambda: datasets)), "tests")


def test_a_fact_that_is_not_stated_has_a_default_and_an_option_is_not_a_fact() -> None:
    assert facts(DatasetFacts, Plain) == DatasetFacts()
    assert facts(DatasetFacts, TinyData).classes == (), "there `classes` is a number, an option"


def test_a_class_that_says_default_false_is_not_the_default(registry: Registry) -> None:
    register(registry, **{"a-first-in-order": NotTheDefault})
    assert resolve(registry, "fedavg").data_name == "digits"


def test_a_fact_of_the_wrong_type_is_refused_when_it_registers(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"^data set 'x': class attribute default must be bool"):
        register(registry, x=Wrong)


@pytest.mark.parametrize("kind", ["executor", "plugin"])
def test_addresses_must_name_options(kind: str, registry: Registry) -> None:
    @dataclass(frozen=True, eq=False)
    class Connects:
        """An executor and a plugin whose option is called otherwise."""

        addresses: ClassVar[tuple[str, ...]] = ("adress",)
        address: str | None = None

        def open(self, runtime: Any) -> None:
            """Open nothing."""

        @hookimpl
        def round_end(self, directory: Path | None) -> None:
            """Do nothing."""

    hooks = {f"register_{kind}s": hookimpl(lambda: {"x": Connects})}
    expected = rf"^{kind} 'x': addresses names 'adress', which is not an option .did you mean"
    with pytest.raises(PluginError, match=expected):
        registry.add(SimpleNamespace(**hooks), "tests")


def test_a_models_packages_are_names(registry: Registry) -> None:
    class OneName(TinyModel):
        """A model that states a name where names belong."""

        packages: ClassVar[Any] = "timm"

    with pytest.raises(PluginError, match=r"^model 'x': class attribute packages must be tuple"):
        registry.add(SimpleNamespace(register_models=hookimpl(lambda: {"x": OneName})), "tests")
