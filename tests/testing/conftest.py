"""A fixture that registers a test's own plugin, method or other thing as ``mine``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest

from fedbench import discover, hookimpl
from fedbench.plugins.registry import KINDS, Registry


@pytest.fixture
def registry_with() -> Callable[..., Registry]:
    """Return a function that adds things, given by kind, to the installed registry as ``mine``."""

    def made(**things: object) -> Registry:
        registry = discover()
        for kind, thing in things.items():
            hook = KINDS[{"method": "recipe", "partition": "plugin"}.get(kind, kind)]

            def register(thing: object = thing) -> Mapping[str, object]:
                return {"mine": thing}

            registry.add(SimpleNamespace(**{hook: hookimpl(register)}), "tests")
        return registry

    return made
