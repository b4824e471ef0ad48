"""The numbers as files for other programs: CSV in long form, and JSON."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..store.files import json_ready, to_json
from ..study.analysis import MEAN, Analysis, Group
from ..study.curves import COSTS
from ..study.records import Record
from ..study.targets import by_seed
from ..text import printable
from ..types import RoundResult, SplitScores
from .content import PAIRED, unpaired_seeds
from .series import class_names, rounds_used

COLUMNS = (
    "setting",
    "variant",
    "seed",
    "round",
    "inference",
    "metric",
    "split",
    "domain",
    "client",
    "class",
    "value",
)

RUN_COLUMNS = (
    *("setting", "variant", "seed", "status", "rounds", "metric", "accuracy", "target", "reached"),
    *(f"{cost}_to_target" for cost in COSTS),
    *("area", "best", "best_round", "drop", "below_peak"),
)

MANY_VALUES = 1_000_000
"""Values of classes and clients in the CSV, about 70 MB."""

FORMULAS = {"=", "+", "-", "@"}
"""What a formula of a spreadsheet begins with."""


def rounds_csv(analysis: Analysis) -> str:
    """Return every number of every round, one per line, failed and unfinished runs too.

    With more than `MANY_VALUES` values of classes and clients, those of the rounds that the
    accuracy rule counts, see `left_out`.

    ``domain`` is ``mean`` for the mean over domains; ``client`` is a client's id, or ``mean`` (by
    examples), ``plain_mean``, ``std`` or ``worst_tenth``; ``split`` is the data scored. Rows
    without ``inference`` are of the round: the plugins' metrics by their names, ``bytes_up.KEY``,
    ``bytes_down.KEY``, ``seconds``, and apart from these ``personal_bytes.KEY`` and
    ``personal_seconds``. The ``value`` of a class without one is empty. Names are `printable`, so
    that a row is a line, and have an apostrophe before them where a spreadsheet would run them as a
    formula.
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
            in_full = {one.round for one in used}
            for one in record.rounds:
                for row in _round(one, classes, one.round in in_full):
                    writer.writerow(map(_cell, (*head, one.round, *row)))
    return text.getvalue()


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV; texts are as in `rounds_csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow(map(_cell, row))
    return text.getvalue()


def runs_csv(analysis: Analysis) -> str:
    """Return a line for each variant and seed: its accuracy, what the target cost it, its curve.

    Where ``reached`` is 0, the costs are what the run spent without reaching the target: lower
    bounds. What a run does not have, such as the accuracy of a failed one, is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RUN_COLUMNS)
    for group in analysis.groups:
        for variant, runs in by_seed(group.records).items():
            for seed, run in sorted(runs.items()):
                head = (group.label, variant, seed, run.status, len(run.rounds), group.metric)
                writer.writerow(map(_cell, (*head, *_in_numbers(group, run))))
    return text.getvalue()


def _in_numbers(group: Group, run: Record) -> Iterator[Any]:
    """Yield the numbers of `RUN_COLUMNS`, from the accuracy on; an empty text for each lacking."""
    yield run.result.accuracy.mean if run.result else ""
    if reaching := group.curves.reaching:
        costs = [reaching.amounts[run.variant][cost][run.seed] for cost in COSTS]
        yield from (reaching.target, int(costs[0].exact), *(one.value for one in costs))
    else:
        yield from ("", "", *("" for _ in COSTS))
    found = group.curves.shapes[run.variant].get(run.seed)
    numbers = dataclasses.astuple(found) if found else [None] * 5
    yield from ("" if value is None else value for value in numbers)


def left_out(analysis: Analysis) -> str:
    """Return a line on what `rounds_csv` leaves out, empty when that is nothing."""
    rounds = [o for group in analysis.groups for record in group.records for o in record.rounds]
    classes, clients = sum(map(_class_values, rounds)), sum(map(_client_values, rounds))
    if classes + clients <= MANY_VALUES:
        return ""
    what = " and ".join(["classes"] * bool(classes) + ["clients"] * bool(clients))
    return (
        f"rounds.csv has values of {what} for the rounds that the accuracy rule counts; all "
        f"{classes + clients:,} are in the run directories"
    )


def _class_values(one: RoundResult) -> int:
    return sum(
        len(value)
        for rules in (one.scores, one.validation.domains)
        for metrics in rules.values()
        for scores in metrics.values()
        for value in scores.domains.values()
        if isinstance(value, list)
    )


def _client_values(one: RoundResult) -> int:
    return sum(
        len(over.clients)
        for rules in (one.client_scores, one.validation.clients)
        for metrics in rules.values()
        for over in metrics.values()
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


def _round(one: RoundResult, classes: list[str], in_full: bool) -> Iterator[tuple[Any, ...]]:
    test = SplitScores(one.scores, one.client_scores)
    for split, found in (("test", test), ("validation", one.validation)):
        yield from _over_domains(found, split, classes if in_full else None)
        yield from _over_clients(found, split, in_full)
    for inference, metrics in one.extra_scores.items():
        for metric, sets in metrics.items():
            for name, value in sets.items():
                if not isinstance(value, list):
                    yield inference, metric, "extra", name, "", "", value
    for name, value in one.metrics.items():
        yield _of_round(name, value)
    ways = {"bytes_up": one.bytes_up, "bytes_down": one.bytes_down}
    for way, sent in {**ways, "personal_bytes": one.personal_bytes}.items():
        for key, number_of_bytes in sent.items():
            yield _of_round(f"{way}.{key}", number_of_bytes)
    yield _of_round("seconds", one.seconds)
    if one.time is not None:
        yield _of_round("virtual_seconds", one.time)
    if one.personal_seconds:
        yield _of_round("personal_seconds", one.personal_seconds)


def _of_round(name: str, value: float) -> tuple[Any, ...]:
    return "", name, "", "", "", "", value


def _over_domains(
    found: SplitScores, split: str, classes: list[str] | None
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of scores over domains; those of classes only where their names are given."""
    for inference, metrics in found.domains.items():
        for metric, scores in metrics.items():
            if scores.mean is not None:
                yield inference, metric, split, MEAN, "", "", scores.mean
            for domain, value in scores.domains.items():
                if not isinstance(value, list):
                    yield inference, metric, split, domain, "", "", value
                elif classes is not None:
                    for number, part in enumerate(value):
                        name = classes[number] if number < len(classes) else number
                        yield inference, metric, split, domain, "", name, part


def _over_clients(found: SplitScores, split: str, in_full: bool) -> Iterator[tuple[Any, ...]]:
    for inference, metrics in found.clients.items():
        for metric, over in metrics.items():
            numbers: dict[str | int, float] = {
                MEAN: over.mean,
                "plain_mean": over.plain,
                "std": over.std,
                "worst_tenth": over.worst_tenth,
            }
            for client in over.clients if in_full else ():
                numbers[client] = over.clients[client]
            for name, value in numbers.items():
                yield inference, metric, split, "", name, "", value


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
        "ranks": json_ready(group.ranks),
        "curves": json_ready(group.curves),
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
