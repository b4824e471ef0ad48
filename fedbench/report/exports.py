"""The numbers as files for other programs: CSV in long form, and JSON."""

from __future__ import annotations

import csv
import functools
import io
import math
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from ..store.files import json_ready, to_json
from ..study.analysis import MEAN, Analysis, Group
from ..study.records import Record
from ..text import printable
from ..types import RoundResult
from .content import PAIRED, unpaired_seeds
from .series import class_names, rounds_used

COLUMNS = (
    "setting",
    "variant",
    "seed",
    "round",
    "inference",
    "metric",
    "domain",
    "class",
    "value",
)

CLASS_VALUES = 1_000_000
"""Values of classes in the CSV, about 70 MB."""

FORMULAS = {"=", "+", "-", "@"}
"""What a formula of a spreadsheet begins with."""


def rounds_csv(analysis: Analysis) -> str:
    """Return every number of every round, one per line, failed and unfinished runs too.

    With more than `CLASS_VALUES` values of classes, those of the rounds that the accuracy rule
    counts, see `left_out`.

    ``domain`` is ``mean`` for the mean over domains. Rows without ``inference`` are of the round:
    the plugins' metrics by their names, ``bytes_up.KEY``, ``bytes_down.KEY`` and ``seconds``. The
    ``value`` of a class without one is empty. Names are `printable`, so that a row is a line, and
    have an apostrophe before them where a spreadsheet would run them as a formula.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    few = bool(left_out(analysis))
    for group in analysis.groups:
        classes = class_names(group)
        for record in group.records:
            head = (group.label, record.variant, record.seed)
            used = rounds_used(group, record) if few and record.rounds else record.rounds
            with_classes = {one.round for one in used}
            for one in record.rounds:
                for row in _round(one, classes, one.round in with_classes):
                    writer.writerow(map(_cell, (*head, one.round, *row)))
    return text.getvalue()


def left_out(analysis: Analysis) -> str:
    """Return a line on what `rounds_csv` leaves out, empty when that is nothing."""
    values = sum(
        len(value)
        for group in analysis.groups
        for record in group.records
        for one in record.rounds
        for metrics in one.scores.values()
        for scores in metrics.values()
        for value in scores.domains.values()
        if isinstance(value, list)
    )
    if values <= CLASS_VALUES:
        return ""
    return (
        f"rounds.csv has values of classes for the rounds that the accuracy rule counts; all "
        f"{values:,} are in the run directories"
    )


def _cell(value: Any) -> Any:
    return _text(value) if isinstance(value, str) else value


@functools.lru_cache(10_000)
def _text(text: str) -> str:
    """Return text on one line, with an apostrophe before what begins like a formula.

    A spreadsheet runs what begins with ``= + - @``, in some languages also their wide forms, and
    may drop white space before it. Numbers are harmless, also those that are text.
    """
    start = unicodedata.normalize("NFKC", text).lstrip()[:1]
    formula = start in FORMULAS and not _is_number(text)
    return ("'" if formula else "") + printable(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _round(one: RoundResult, classes: list[str], with_classes: bool) -> Iterator[tuple[Any, ...]]:
    for inference, metrics in one.scores.items():
        for metric, scores in metrics.items():
            if scores.mean is not None:
                yield inference, metric, MEAN, "", scores.mean
            for domain, value in scores.domains.items():
                if not isinstance(value, list):
                    yield inference, metric, domain, "", value
                    continue
                for number, part in enumerate(value if with_classes else ()):
                    name = classes[number] if number < len(classes) else number
                    yield inference, metric, domain, name, part
    for metric, value in one.metrics.items():
        yield "", metric, "", "", value
    for way, sent in (("bytes_up", one.bytes_up), ("bytes_down", one.bytes_down)):
        for key, number_of_bytes in sent.items():
            yield "", f"{way}.{key}", "", "", number_of_bytes
    yield "", "seconds", "", "", one.seconds


def summary_json(analysis: Analysis) -> bytes:
    """Return the whole analysis and what each run is; numbers that are not finite become null."""
    data = {
        "protocol": PAIRED,
        "reference": analysis.reference,
        "test": analysis.test,
        "correction": "holm",
        "settings": [_group(group) for group in analysis.groups],
        "ranks": json_ready(analysis.ranks),
    }
    return to_json(_finite(data))


def _group(group: Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "setting": group.setting,
        "rule": group.rule,
        "unit": group.unit,
        "higher_is_better": group.higher_is_better,
        "reference": group.reference,
        "not_paired": unpaired_seeds(group),
        "variants": {
            variant: {
                "wins_ties_losses": group.wins.get(variant),
                "columns": {
                    column: {**json_ready(cell), "significant": cell.significant}
                    for column, cell in cells.items()
                },
            }
            for variant, cells in group.cells.items()
        },
        "runs": [_run(record) for record in group.records],
    }


def _run(record: Record) -> dict[str, Any]:
    return {
        "path": str(record.path),
        "variant": record.variant,
        "seed": record.seed,
        "status": record.status,
        "error": record.error,
        "rounds": len(record.rounds),
        "config_hash": record.config.hash,
        "result": json_ready(record.result),
        "environment": json_ready(record.environment),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
