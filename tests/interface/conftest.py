"""fedbench from Python, in an empty folder, on a few digits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fedbench_datasets import digits

import fedbench
from fedbench import RunResult

FEW: Mapping[str, Any] = {
    "domains.examples": 20,
    "sgd.epochs": 1,
    "model.width": 2,
    "model.feature_size": 8,
}


@pytest.fixture(scope="session")
def digits_once() -> Any:
    """Compose the digits once for all tests."""
    return cache(digits.load)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits_once: Any) -> None:
    monkeypatch.setattr(digits, "load", digits_once)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def few() -> dict[str, Any]:
    """Arguments for a run of seconds."""
    return {"data": "digits", "executor": "inline", "set": dict(FEW)}


@pytest.fixture
def grid() -> dict[str, Any]:
    """Arguments for a comparison of seconds."""
    return {"data": "digits", "rounds": 1, "seeds": 2, "set": {**FEW, "executor": "inline"}}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Return a finished run of two rounds, which no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    more: Any = {"executor": "inline", "quiet": True, "set": FEW}
    return fedbench.run("fedavg", data="digits", rounds=2, out=folder, **more)
