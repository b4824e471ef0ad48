"""The table of a reproduction: published beside measured, with interval and verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..store.files import write_atomic
from ..study.censoring import Amount
from ..study.reproductions import Reproduction
from ..study.verdicts import Pair, Value, Verdict, worst
from .content import NONE, TextTable
from .tables import markdown_table

SCORES = {
    "mean": "accuracy",
    "worst": "worst accuracy (over clients: the worst tenth)",
    "std": "standard deviation of the accuracy; less is better",
}
"""What of the accuracy a cell judges -> the words for it."""


def overall(found: Reproduction, verdicts: Sequence[Verdict]) -> tuple[str, str]:
    """Return the verdict on all cells and a sentence about it."""
    outcome = worst([one.outcome for one in verdicts])
    cells = "1 cell" if len(verdicts) == 1 else f"{len(verdicts)} cells"
    if found.from_memory:
        why = f"{outcome} by values from memory, which prove nothing"
        return "undecided", f"{found.name}: undecided, {cells}: {why}"
    return outcome, f"{found.name}: {outcome}, {cells}"


def tables(found: Reproduction, verdicts: Sequence[Verdict]) -> list[TextTable]:
    """Return a table for each cell, and one of each cell's published order."""
    return [
        table
        for one in verdicts
        for table in (_values(found, one), _pairs(one))
        if table is not None
    ]


def _values(found: Reproduction, one: Verdict) -> TextTable:
    unit = "rounds" if one.rounds else "%"
    head = ("method", f"published ({unit})", "allowed", f"measured ({unit})", "95 % interval")
    notes = [f"published: {found.source}" + (" (from memory)" if found.from_memory else "")]
    if one.cell.published:
        notes.append(f"a value counts as reproduced {found.rule}: the mean over seeds")
    if one.cell.score != "mean":
        notes.append(f"measured: {SCORES[one.cell.score]}")
    if one.rounds:
        notes.append("rounds: the first round after which the target was reached")
    return TextTable(
        one.name,
        f"{one.cell.title}: {one.outcome}",
        (*head, "seeds", "verdict"),
        tuple(_value(value, one.rounds) for value in one.values),
        tuple(notes),
    )


def _value(value: Value, rounds: bool) -> tuple[str, ...]:
    allowed = f"{_number(value.low, rounds)} to {_number(value.high, rounds)}"
    interval = NONE
    if value.summary and value.summary.low is not None and value.summary.high is not None:
        ends = (_number(end, rounds) for end in (value.summary.low, value.summary.high))
        interval = " to ".join(ends)
    return (
        value.method,
        NONE if value.published is None else _number(value.published, rounds),
        NONE if value.published is None else allowed,
        _measured(value, rounds),
        interval,
        str(len(value.measured)),
        value.outcome or NONE,
    )


def _measured(value: Value, rounds: bool) -> str:
    if value.summary:
        return _number(value.summary.mean, rounds)
    return ", ".join(_amount(one, rounds) for one in value.measured.values()) or NONE


def _amount(one: Amount, rounds: bool) -> str:
    return ("" if one.exact else "> ") + _number(one.value, rounds)


def _number(number: float, rounds: bool) -> str:
    return f"{number:.1f}".removesuffix(".0") if rounds else f"{100 * number:.2f}"


def _pairs(one: Verdict) -> TextTable | None:
    if not one.pairs:
        return None
    unit = "rounds" if one.rounds else "points"
    rows = tuple(_pair(pair, one.rounds) for pair in one.pairs)
    return TextTable(
        f"{one.name}-order",
        f"{one.cell.title}: published order",
        ("better", "than", f"difference ({unit})", "95 % interval", "verdict"),
        rows,
        ("counts as reproduced if the interval of the paired difference excludes zero",),
    )


def _pair(pair: Pair, rounds: bool) -> tuple[str, ...]:
    difference, interval = NONE, NONE
    if pair.paired and pair.paired.difference is not None:
        difference = _number(pair.paired.difference, rounds)
        if pair.paired.low is not None and pair.paired.high is not None:
            ends = (_number(end, rounds) for end in (pair.paired.low, pair.paired.high))
            interval = " to ".join(ends)
    return (pair.better, pair.worse, difference, interval, pair.outcome)


def write(found: Reproduction, verdicts: Sequence[Verdict], folder: Path) -> list[Path]:
    """Write the tables as Markdown, and all numbers as JSON; return the files."""
    _, sentence = overall(found, verdicts)
    text = [f"# {found.title}", f"{sentence}."]
    text += [markdown_table(table) for table in tables(found, verdicts)]
    if found.differs:
        text.append("\n".join(("Known to differ from the published protocol:", "", *_items(found))))
    files = {
        f"{found.name}.md": "\n\n".join(text) + "\n",
        f"{found.name}.json": json.dumps(numbers(found, verdicts), indent=2) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content.encode())
    return [folder / name for name in files]


def _items(found: Reproduction) -> list[str]:
    return [f"- {what}" for what in found.differs]


def numbers(found: Reproduction, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return everything as JSON-like data; accuracies are fractions of 1."""
    return {
        "reproduction": found.name,
        "version": found.version,
        "verdict": overall(found, verdicts)[0],
        "source": found.source,
        "from_memory": found.from_memory,
        "rule": str(found.rule) if found.rule.given else None,
        "cells": {
            one.name: {
                "verdict": one.outcome,
                "measured": "rounds" if one.rounds else SCORES[one.cell.score],
                "values": [_value_numbers(value) for value in one.values],
                "order": [_pair_numbers(pair) for pair in one.pairs],
            }
            for one in verdicts
        },
    }


def _value_numbers(value: Value) -> dict[str, Any]:
    summary = value.summary
    return {
        "method": value.method,
        "published": value.published,
        "allowed": [value.low, value.high] if math.isfinite(value.low) else None,
        "mean": summary.mean if summary else None,
        "interval": [summary.low, summary.high] if summary else None,
        "seeds": {
            str(seed): {"value": one.value, "exact": one.exact}
            for seed, one in value.measured.items()
        },
        "verdict": value.outcome,
    }


def _pair_numbers(pair: Pair) -> dict[str, Any]:
    found = pair.paired
    return {
        "better": pair.better,
        "than": pair.worse,
        "difference": found.difference if found else None,
        "interval": [found.low, found.high] if found else None,
        "verdict": pair.outcome,
    }
