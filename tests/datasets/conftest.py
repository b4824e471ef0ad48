"""What several test modules of data sets need: an own cache, and the text of a failed load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench import ConfigError


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache and data root out of a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)


@pytest.fixture
def message() -> Callable[[Any, Path], str]:
    """Load a data set that must be refused, ``message(dataset, root)``; return the error's text."""

    def load(dataset: Any, root: Path) -> str:
        with pytest.raises(ConfigError) as raised:
            dataset.load(root)
        text = str(raised.value)
        assert "\n" not in text
        return text

    return load
