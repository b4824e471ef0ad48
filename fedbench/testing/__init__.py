"""The conformance kit: rules that every plugin must keep, for use in its author's tests.

With pytest::

    import pytest
    from fedbench import testing

    @pytest.mark.parametrize("rule", testing.rules("method", "my-method"), ids=str)
    def test_conformance(rule):
        rule.check()

A broken rule raises `RuleBroken`, which says what is wrong, where, and how to mend it. A rule that
can't be checked (an optional package or a data set's files are missing) raises
``unittest.SkipTest``, which test runners report as skipped. The kit itself needs no test runner.

The kit comes with tiny data (`TinyData`: three classes, domains ``ink`` and ``chalk``), a tiny
model (`TinyModel`) and the simplest pieces of a run, so a round takes milliseconds. A method runs
as its recipe says. A run plugin runs in the smallest method that names it, or, if no method names
it, together with the plugins that it requires. Whatever a run then still lacks comes from the kit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plugins.discovery import discover
from ..plugins.registry import Registry
from . import describing, passes, rounds, things, workers  # noqa: F401 - their rules register themselves
from .rule import SPECS, Rule, RuleBroken
from .standins import (
    batch,
    client_context,
    client_result,
    output,
    report,
    run_turn,
    server_context,
    server_state,
    tiny_dataset,
)
from .subject import KINDS, Subject
from .tiny import TinyData, TinyModel, TinyModule

__all__ = [
    "KINDS",
    "Rule",
    "RuleBroken",
    "TinyData",
    "TinyModel",
    "TinyModule",
    "batch",
    "client_context",
    "client_result",
    "output",
    "report",
    "rules",
    "run_turn",
    "server_context",
    "server_state",
    "table",
    "tiny_dataset",
]


def rules(
    kind: str,
    name: str,
    registry: Registry | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> list[Rule]:
    """Return the rules that apply to one registered thing.

    Args:
        kind: ``method``, ``plugin``, ``partition`` (a run plugin that implements this hook),
            ``dataset``, ``model``, ``metric`` or ``executor``.
        name: its registered name.
        registry: what is installed; default `fedbench.discover`.
        options: its options; those without a default are required.
        model: options of `TinyModel`, such as ``{"norm": "none"}`` for what refuses batch norm.

    Raises:
        ConfigError: when nothing of that kind and name is registered.
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    subject = Subject(registry or discover(), kind, name, options or {}, model or {})
    return [Rule(subject, s) for s in SPECS if kind in s.kinds and s.applies(subject)]


def table() -> list[tuple[str, str, str]]:
    """Return every rule as (name, kinds that it applies to, statement)."""
    return [(spec.name, ", ".join(spec.kinds), spec.statement) for spec in SPECS]
