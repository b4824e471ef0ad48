"""Verdicts: measured values beside published ones, by a rule that was fixed before the runs.

Pure functions. A value counts as reproduced if the mean over seeds is as near to the published one
as the rule says; a run that has not reached its target is a lower bound, as in
`fedbench.study.censoring`. An order counts as reproduced if the interval of each paired difference
excludes zero; with one seed there is no interval, so that an order stays undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Literal

from ..plugins.facts import MetricFacts, facts
from ..plugins.registry import Registry
from . import statistics
from .censoring import Amount
from .curves import to_target
from .grid import Job, collect
from .records import Record
from .reproductions import Cell, Part, Rule
from .statistics import Paired, Summary

Outcome = Literal["reproduced", "not reproduced", "undecided"]

Amounts = Mapping[int, Amount]
"""Seed -> what was measured: the accuracy, or the rounds to the target."""


@dataclass(frozen=True)
class Value:
    """A published value and what was measured for it.

    Args:
        method: the method.
        published: its published value; ``None`` if only an order was published.
        low: the lowest value that counts as reproduced.
        high: the highest.
        measured: by seed.
        summary: mean and interval; ``None`` without a run, or if a run did not reach its target.
        outcome: ``None`` without a published value.
    """

    method: str
    published: float | None
    low: float
    high: float
    measured: Amounts
    summary: Summary | None
    outcome: Outcome | None


@dataclass(frozen=True)
class Pair:
    """Two methods that were published in this order, and the paired difference measured."""

    better: str
    worse: str
    paired: Paired | None
    outcome: Outcome


@dataclass(frozen=True)
class Verdict:
    """What came of a cell.

    Args:
        name: the cell's name.
        cell: the cell.
        rounds: whether values are rounds to a target; otherwise they are accuracies.
        values: one per method.
        pairs: one per two neighbours of the published order.
    """

    name: str
    cell: Cell
    rounds: bool
    values: tuple[Value, ...]
    pairs: tuple[Pair, ...]

    @property
    def outcome(self) -> Outcome:
        """Not reproduced if anything is not, else undecided if anything is."""
        return worst([v.outcome for v in self.values if v.outcome], [p.outcome for p in self.pairs])


def worst(*outcomes: Sequence[Outcome]) -> Outcome:
    """Return the worst of some outcomes."""
    found = {one for some in outcomes for one in some}
    order: tuple[Outcome, ...] = ("not reproduced", "undecided")
    return next((one for one in order if one in found), "reproduced")


def judge(registry: Registry, part: Part, rule: Rule, jobs: Sequence[Job]) -> Verdict:
    """Compare what the runs of a cell have measured with what was published."""
    config = jobs[0].config
    rounds = config.stop_at is not None
    metric = facts(MetricFacts, registry.get("metric", config.accuracy.metric).value)
    kept = {record.path: record for record in collect(registry, jobs)}
    measured: dict[str, dict[int, Amount]] = {method: {} for method in part.grid.methods}
    for job in jobs:
        if amount := _amount(kept.get(job.path), part.cell, metric.higher_is_better):
            for method in (job.method, *job.also):
                measured[method][job.config.seed] = amount
    better_is_more = metric.higher_is_better and not rounds and part.cell.score != "std"
    return Verdict(
        part.name,
        part.cell,
        rounds,
        tuple(
            value(method, part.cell.published.get(method), rule, found)
            for method, found in measured.items()
        ),
        tuple(
            pair(one, other, measured[one], measured[other], better_is_more)
            for one, other in pairwise(part.cell.order)
        ),
    )


def _amount(record: Record | None, cell: Cell, higher_is_better: bool) -> Amount | None:
    """Return what a run has measured; ``None`` if nothing yet."""
    if record is None:
        return None
    target = record.config.stop_at
    if target is None:
        return Amount(getattr(record.result.accuracy, cell.score)) if record.result else None
    return to_target(record.rounds, record.config.accuracy, target, higher_is_better)["rounds"]


def value(method: str, published: float | None, rule: Rule, measured: Amounts) -> Value:
    """Judge a method's value; without a published one there is nothing to judge."""
    numbers = [one.value for one in measured.values()]
    exact = all(one.exact for one in measured.values())
    summary = statistics.summary(numbers) if numbers and exact else None
    if published is None:
        return Value(method, None, -math.inf, math.inf, measured, summary, None)
    slack = rule.allowed(published)
    low, high = published - slack, published + slack
    outcome: Outcome = "undecided"
    if numbers:
        least = fmean(numbers)
        most = least if exact else math.inf
        if low <= least and most <= high:
            outcome = "reproduced"
        elif least > high or most < low:
            outcome = "not reproduced"
    return Value(method, published, low, high, measured, summary, outcome)


def pair(better: str, worse: str, ours: Amounts, theirs: Amounts, more: bool) -> Pair:
    """Judge the order of two methods by the interval of their paired difference.

    Args:
        better: the method published as the better one.
        worse: the other.
        ours: what was measured for ``better``.
        theirs: what was measured for ``worse``.
        more: whether a higher value is better.
    """
    sides = [{seed: one.value for seed, one in side.items()} for side in (ours, theirs)]
    exact = all(one.exact for side in (ours, theirs) for one in side.values())
    found = statistics.paired(sides[0], sides[1]) if exact and ours and theirs else None
    if found is None or found.low is None or found.high is None:
        return Pair(better, worse, found, "undecided")
    low, high = (found.low, found.high) if more else (-found.high, -found.low)
    outcome: Outcome = "reproduced" if low > 0 else "not reproduced" if high < 0 else "undecided"
    return Pair(better, worse, found, outcome)
