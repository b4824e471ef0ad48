"""Progress fits where it is shown; a notebook's output is HTML, and text without escapes."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fedbench.interface import progress
from fedbench.study.execute import Progress


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Stand in for a notebook: return what its only output has shown."""
    found: list[dict[str, str]] = []

    def display(forms: dict[str, str], raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        assert not found, "one output that changes"
        found.append(forms)
        return SimpleNamespace(update=lambda forms, raw: found.append(forms))

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    return found


def test_a_notebook_shows_a_comparison_in_one_output_that_stays(
    shown: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    state = Progress(2, running={"<b>one</b>\x1b[31m": (1, 3)})
    with progress.ComparisonProgress(quiet=False) as show:
        show(state)
        state.running.clear()
        state.done = 2
        show(state)
    assert set(shown[0]) == {"text/html", "text/plain"}
    assert "&lt;b&gt;one&lt;/b&gt;" in shown[0]["text/html"]
    assert "1/3" in shown[0]["text/plain"]
    assert "2/2 runs (0 reused, 0 failed)" in shown[-1]["text/plain"]
    assert not [form for forms in shown for form in forms.values() if "\x1b" in form]
    assert capsys.readouterr().out == ""


def test_a_quiet_comparison_shows_nothing(shown: list[dict[str, str]]) -> None:
    with progress.ComparisonProgress(quiet=True) as show:
        show(Progress(1))
    assert not shown
