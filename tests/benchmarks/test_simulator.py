"""The benchmark of the simulator of virtual time: its short form."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(request.config.rootpath / "benchmarks"))
    return importlib.import_module("simulator")


@pytest.mark.parametrize("size", [1, 5])
def test_every_arrival_is_counted(simulator: ModuleType, size: int) -> None:
    found = simulator.measure(clients=50, arrivals=20, size=size, executor="inline")
    assert found["arrivals"] == 20 - size  # without the first round
    assert found["virtual seconds"] > 0
