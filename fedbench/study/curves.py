"""What one run's learning curve amounts to: cost to a target, area, best round, forgetting.

Pure functions of a run's rounds. The **curve** is the reported metric's mean after every scored
round (`fedbench.engine.evaluation.view`), so rounds that are not scored (``evaluate_every``) are no
points of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, TypeGuard, TypeVar

import numpy as np

from ..config.model import Accuracy
from ..engine.evaluation import client_view, reaches, view
from ..types import RoundResult
from .censoring import Amount

K = TypeVar("K", bound=Hashable)

Point = tuple[int, float]
"""A scored round, and the value after it."""

LARGEST = 1e150
"""Values from here on are left out like those that are no numbers: their squares are infinite."""

COSTS = ("rounds", "bytes", "seconds")
"""What a run spends: rounds, bytes of all clients in both directions, wall-clock seconds."""

VIRTUAL = "virtual_seconds"
"""What a run spends besides under a clock."""


@dataclass(frozen=True)
class Shape:
    """One run's curve in numbers.

    Args:
        area: see `area`.
        best: the best value of the curve, selected on the data that it is measured on.
        best_round: the first round with it.
        drop: see `drop_per_round`; ``None`` for a single point, or if no parts are kept.
        loss: see `loss_from_peak`; ``None`` as for ``drop``.
    """

    area: float
    best: float
    best_round: int
    drop: float | None
    loss: float | None


def points(rounds: Sequence[RoundResult], rule: Accuracy) -> list[Point]:
    """Return the curve of a run."""
    scored = ((one.round, view(one, rule)) for one in rounds)
    return [(number, found.mean) for number, found in scored if found and averages(found.mean)]


def averages(value: float | None) -> TypeGuard[float]:
    """Whether a value can be averaged: not ``None``, infinite, NaN, or from `LARGEST` on."""
    return value is not None and abs(value) < LARGEST


def to_target(
    rounds: Sequence[RoundResult], rule: Accuracy, target: float, higher_is_better: bool
) -> dict[str, Amount]:
    """Return what a run spent, by `COSTS` and `VIRTUAL`, until the first point at a target.

    The costs are those of all rounds up to and including that point. A run without such a point
    has spent all that it did, and would have had to spend more: its amounts are lower bounds. As in
    McMahan et al. (AISTATS 2017, section 3) the first time counts, whatever comes after; unlike
    there, no round between two points is interpolated.
    """
    reached = (n for n, value in points(rounds, rule) if reaches(value, target, higher_is_better))
    last = next(reached, None)
    spent = rounds if last is None else [one for one in rounds if one.round <= last]
    totals: dict[str, float] = {
        "rounds": len(spent),
        "bytes": sum(sum(one.bytes_up.values()) + sum(one.bytes_down.values()) for one in spent),
        "seconds": sum(one.seconds for one in spent),
    }
    if spent and (time := spent[-1].time) is not None:
        totals[VIRTUAL] = time
    return {cost: Amount(total, last is not None) for cost, total in totals.items()}


def area(curve: Sequence[Point]) -> float:
    """Return the normalised area under a curve: its mean height from its first to its last point.

    Between two points the curve is a straight line (trapezoidal rule), so that points count by the
    rounds that they stand for. The area of a single point is its value.
    """
    x, y = zip(*curve, strict=True)
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(curve) > 1 else float(y[0])


def best(curve: Sequence[Point], higher_is_better: bool) -> Point:
    """Return the best point of a curve, the first one if several are equally good."""
    sign = 1 if higher_is_better else -1
    return max(curve, key=lambda point: sign * point[1])


def parts(one: RoundResult, rule: Accuracy, by_class: str | None) -> dict[Any, float]:
    """Return the values of a round that may be forgotten one by one; empty if it has none.

    Args:
        one: the round.
        rule: the run's accuracy rule.
        by_class: a metric with a value per class. Over domains, the parts are then the classes of
            each domain; without it, the domains; over clients, the clients.
    """
    if rule.population == "clients":
        over = client_view(one, rule)
        return {c: v for c, v in over.clients.items() if averages(v)} if over else {}
    found = view(one, rule, by_class)
    values: dict[Any, float] = {}
    for domain, value in found.domains.items() if found else ():
        if isinstance(value, list):
            values |= {(domain, n): each for n, each in enumerate(value) if averages(each)}
        elif averages(value):
            values[domain] = value
    return values


def drop_per_round(history: Sequence[Mapping[K, float]], higher_is_better: bool) -> float | None:
    """Return the forgetting between rounds: by how much parts get worse from point to point.

    The mean over neighbouring points t - 1 and t, and over the parts k of both, of
    ``max(0, a_k(t-1) - a_k(t))`` for accuracies a: gains on other parts do not make up for it
    (round forgetting of Aljahdali et al., Flashback, arXiv 2402.05558).

    Args:
        history: part -> value at each point.
        higher_is_better: whether a lower value is worse; otherwise a higher one is.
    """
    sign = 1 if higher_is_better else -1
    drops = [
        fmean(max(0.0, sign * (before[k] - now[k])) for k in shared)
        for before, now in pairwise(history)
        if (shared := before.keys() & now.keys())
    ]
    return fmean(drops) if drops else None


def loss_from_peak(history: Sequence[Mapping[K, float]], higher_is_better: bool) -> float | None:
    """Return the forgetting at the end: how far each part ends below its best earlier value.

    The mean over the parts k of ``max over t < T of a_k(t) - a_k(T)``, the forgetting measure F of
    Lee et al. (FedNTD, NeurIPS 2022), which takes it from continual learning. A part whose last
    value is its best counts negatively.

    Args:
        history: part -> value at each point.
        higher_is_better: as in `drop_per_round`.
    """
    if len(history) < 2:
        return None
    sign = 1 if higher_is_better else -1
    *earlier, last = history
    losses = [
        max(sign * one[k] for one in earlier if k in one) - sign * value
        for k, value in last.items()
        if any(k in one for one in earlier)
    ]
    return fmean(losses) if losses else None


def shape(
    rounds: Sequence[RoundResult],
    rule: Accuracy,
    higher_is_better: bool,
    by_class: tuple[str, bool] | None = None,
) -> Shape | None:
    """Return a run's curve in numbers; ``None`` for a run without a scored round.

    Args:
        rounds: the run's rounds.
        rule: its accuracy rule.
        higher_is_better: of the reported metric.
        by_class: a metric with a value per class, and whether higher is better for it.
    """
    curve = points(rounds, rule)
    if not curve:
        return None
    name, higher = by_class or (None, higher_is_better)
    history = [values for one in rounds if (values := parts(one, rule, name))]
    number, value = best(curve, higher_is_better)
    drop, loss = drop_per_round(history, higher), loss_from_peak(history, higher)
    return Shape(area(curve), value, number, drop, loss)
