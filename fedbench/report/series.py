"""From the rounds of runs to the rows that charts draw, averaged over seeds.

Rows have short keys since a page embeds them: ``v`` variant, ``r`` round, ``m`` mean, ``lo`` and
``hi`` the band or interval, ``n`` seeds, ``b`` bytes, ``s`` seconds and ``t`` virtual seconds so
far, ``d`` domain.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from ..config.model import Accuracy
from ..engine.evaluation import client_view, counted, view, views
from ..store.contents import Partition
from ..study.analysis import MEAN, Group
from ..study.curves import averages
from ..study.records import Record
from ..types import RoundResult, Scores
from . import narrow

Rows = list[dict[str, Any]]


def finished(group: Group) -> dict[str, list[Record]]:
    """Return variant -> its finished runs, one a seed; variants without one are left out."""
    found: dict[str, list[Record]] = {}
    for variant in group.variants:
        runs = {r.seed: r for r in group.records if r.variant == variant and r.status == "finished"}
        if runs:
            found[variant] = [runs[seed] for seed in sorted(runs)]
    return found


def reported_scores(group: Group) -> Callable[[RoundResult], Scores]:
    """Return what picks the reported metric's scores from a round; empty if it has none."""
    rule = Accuracy(**group.setting["accuracy"])
    return lambda one: view(one, rule) or Scores({})


def curves(group: Group) -> dict[str, Rows]:
    """Return column -> rows of the reported metric over rounds, with bytes and seconds so far."""
    scores = reported_scores(group)

    def pick(column: str) -> Callable[[RoundResult], float | None]:
        if column == MEAN:
            return lambda one: scores(one).mean
        return lambda one: _number(scores(one).domains.get(column))

    found = {}
    for column in group.columns:
        rows = over_rounds(group, pick(column))
        if column == MEAN:
            _add_costs(group, rows)
        found[column] = rows
    return found


def over_rounds(group: Group, pick: Callable[[RoundResult], float | None]) -> Rows:
    """Return mean and one standard deviation over seeds of a number of each round that all have.

    With too many rounds for a chart, the first, every n-th and the last of a variant are kept.
    """
    rows: Rows = []
    for variant, runs in finished(group).items():
        found = (
            (number, [v for v in map(pick, same_round) if averages(v)])
            for number, same_round in _by_round(runs)
        )
        known = [(number, values) for number, values in found if values]
        rows += (
            {"v": variant, "r": number, **_band(values)}
            for number, values in narrow.thinned(known, narrow.points(group))
        )
    return rows


def metric_names(group: Group) -> tuple[list[str], list[str]]:
    """Return the names of the rounds' numbers: loss terms, and all others."""
    names = _names(runs_of(group), lambda one: one.metrics)
    losses = [name for name in names if name.startswith("loss.")]
    return losses, [name for name in names if name not in losses]


def other_scores(group: Group) -> list[tuple[str, str]]:
    """Return (inference, metric) of the scalar test metrics that are not the reported one."""
    rule = group.setting["accuracy"]
    names = _names(
        runs_of(group),
        lambda one: [
            (inference, metric)
            for inference, metrics in one.scores.items()
            for metric, scores in metrics.items()
            if scores.mean is not None
        ],
    )
    return [name for name in names if name != (rule["inference"], rule["metric"])]


def extra_names(group: Group) -> list[tuple[str, str, str]]:
    """Return (inference, metric, extra test set) of every number on an extra test set."""
    return _names(
        runs_of(group),
        lambda one: [
            (inference, metric, name)
            for inference, metrics in one.extra_scores.items()
            for metric, sets in metrics.items()
            for name, value in sets.items()
            if not isinstance(value, list)
        ],
    )


def mean_score(inference: str, metric: str) -> Callable[[RoundResult], float | None]:
    """Return what picks a round's mean of a test metric over domains; ``None`` without one."""

    def mean(one: RoundResult) -> float | None:
        found = one.scores.get(inference, {}).get(metric)
        return found.mean if found else None

    return mean


def extra_score(inference: str, metric: str, name: str) -> Callable[[RoundResult], float | None]:
    """Return what picks a round's number on an extra test set; ``None`` where it has none."""
    return lambda one: _number(one.extra_scores.get(inference, {}).get(metric, {}).get(name))


def runs_of(group: Group) -> list[Record]:
    """Return the runs that charts are made of."""
    return [run for runs in finished(group).values() for run in runs]


def rounds_used(group: Group, run: Record) -> Sequence[RoundResult]:
    """Return the rounds that the accuracy rule counts."""
    rule = run.config.accuracy
    scored = [one for one in run.rounds if view(one, rule) is not None]
    chosen = counted(rule, views(scored, rule), group.higher_is_better)
    return [scored[n] for n in chosen]


ClientValues = Mapping[str, Mapping[int, Mapping[int, float]]]
"""Variant -> seed -> client -> value."""


def client_scores(group: Group) -> ClientValues:
    """Return each client's value of the reported metric in the last round that counts."""
    found: dict[str, dict[int, Mapping[int, float]]] = {}
    for variant, runs in finished(group).items():
        for run in runs:
            last = client_view(rounds_used(group, run)[-1], run.config.accuracy)
            values = {c: v for c, v in last.clients.items() if averages(v)} if last else {}
            if values:
                found.setdefault(variant, {})[run.seed] = values
    return found


def class_scores(group: Group) -> dict[tuple[str, str], dict[str, Rows]]:
    """Return (inference, metric) -> domain -> rows (variant, class, mean over seeds and rounds).

    A class without a value has no row.
    """
    names = _names(
        runs_of(group),
        lambda one: [
            (inference, metric)
            for inference, metrics in one.scores.items()
            for metric, scores in metrics.items()
            if any(isinstance(v, list) for v in scores.domains.values())
        ],
    )
    classes = class_names(group)
    found: dict[tuple[str, str], dict[str, Rows]] = {}
    for inference, metric in names:
        for variant, runs in finished(group).items():
            domains: dict[str, list[list[float | None]]] = {}
            for run in runs:
                for one in rounds_used(group, run):
                    for domain, values in _scores(one, inference, metric).items():
                        if isinstance(values, list):
                            domains.setdefault(domain, []).append(values)
            for domain, lists in domains.items():
                for number, column in enumerate(zip(*lists, strict=True)):
                    name = classes[number] if number < len(classes) else str(number)
                    values = [value for value in column if averages(value)]
                    if values:
                        rows = found.setdefault((inference, metric), {}).setdefault(domain, [])
                        rows.append({"v": variant, "c": name, "m": short(fmean(values))})
    return found


def class_names(group: Group) -> list[str]:
    """Return the names of the classes, as the partition tables give them."""
    for record in group.records:
        if record.partition:
            return list(record.partition.classes)
    return []


def partition(group: Group) -> tuple[int, Partition] | None:
    """Return seed and table of the first partition; ``None`` without one."""
    runs = sorted((r for r in group.records if r.partition), key=lambda r: r.seed)
    if not runs or runs[0].partition is None:
        return None
    return runs[0].seed, runs[0].partition


def partition_rows(table: Partition) -> dict[str, Rows]:
    """Return domain -> rows (client, class, examples); empty cells and domains have none."""
    found: dict[str, Rows] = {domain: [] for domain in table.domains}
    for client, counts in table.counts.items():
        for domain, rows in found.items():
            rows += [
                {"k": client, "c": name, "m": count}
                for name, count in zip(table.classes, counts.get(domain, ()), strict=False)
                if count
            ]
    return {domain: rows for domain, rows in found.items() if rows}


def short(value: float) -> float:
    """Return a float with six significant digits: what a chart can show."""
    return float(f"{value:.6g}")


def _band(values: Sequence[float]) -> dict[str, float]:
    mean = fmean(values)
    spread = stdev(values) if len(values) > 1 else 0.0
    return {
        "m": short(mean),
        "lo": short(mean - spread),
        "hi": short(mean + spread),
        "n": len(values),
    }


def _by_round(runs: Sequence[Record]) -> Iterable[tuple[int, list[RoundResult]]]:
    rounds: dict[int, list[RoundResult]] = {}
    shared = min(len(run.rounds) for run in runs)  # with stop_at, some end earlier than others
    for run in runs:
        for one in run.rounds[:shared]:
            rounds.setdefault(one.round, []).append(one)
    return rounds.items()


def _add_costs(group: Group, rows: Rows) -> None:
    """Add bytes and seconds since the start of the run, the mean over seeds, to each row."""
    costs: dict[tuple[str, int], tuple[float, float]] = {}
    for variant, runs in finished(group).items():
        sent = [list(itertools.accumulate(map(total_bytes, run.rounds))) for run in runs]
        spent = [list(itertools.accumulate(map(_seconds, run.rounds))) for run in runs]
        for number in range(min(map(len, sent))):
            costs[variant, number + 1] = (
                fmean(one[number] for one in sent),
                fmean(one[number] for one in spent),
            )
        if all(one.time is not None for run in runs for one in run.rounds):
            for row in (row for row in rows if row["v"] == variant):
                row["t"] = short(fmean(run.rounds[row["r"] - 1].time or 0.0 for run in runs))
    for row in rows:
        sent_so_far, seconds = costs.get((row["v"], row["r"]), (None, None))
        if averages(sent_so_far) and averages(seconds):
            row |= {"b": round(sent_so_far), "s": short(seconds)}


def total_bytes(one: RoundResult) -> int:
    """Return the bytes that a round sent, up and down, all clients together."""
    return sum(one.bytes_up.values()) + sum(one.bytes_down.values())


def _seconds(one: RoundResult) -> float:
    return one.seconds if averages(one.seconds) else math.nan


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _scores(one: RoundResult, inference: str, metric: str) -> Mapping[str, Any]:
    """Return domain -> a metric's value; empty where the round does not have it."""
    found = one.scores.get(inference, {}).get(metric)
    return found.domains if found else {}


def _names(runs: Iterable[Record], pick: Callable[[RoundResult], Iterable[Any]]) -> list[Any]:
    return list(dict.fromkeys(name for run in runs for one in run.rounds for name in pick(one)))
