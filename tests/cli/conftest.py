"""The command line in this process, in an empty folder, on a few digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fedbench.cli import main


@pytest.fixture(scope="session")
def digits_once():
    """Compose the digits once for all tests."""
    from fedbench_datasets import digits

    return cache(digits.load)


@pytest.fixture
def fedbench(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits_once: object
) -> Callable[..., Result]:
    """Call ``fedbench WORDS...`` in ``tmp_path``; errors keep their traceback in the result."""
    from fedbench_datasets import digits

    monkeypatch.setattr(digits, "load", digits_once)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, [str(w) for w in words], prog_name="fedbench")


@pytest.fixture(scope="session")
def few() -> list[str]:
    """Flags for a run of seconds."""
    sets = ("domains.examples=20", "sgd.epochs=1", "model.width=2", "model.feature_size=8")
    return ["--rounds", "1", "--executor", "inline", *(w for s in sets for w in ("--set", s))]
