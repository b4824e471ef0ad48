"""The learning curves of a setting's variants over seeds: their shapes, and what a target costs.

Every run counts for the target, also a failed or unfinished one: if it has not reached the target,
it is censored (`fedbench.study.censoring`), never dropped. Shapes are those of finished runs, like
the accuracies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ..config.model import Accuracy
from ..engine.evaluation import view
from ..plugins.facts import MetricFacts
from . import censoring, statistics
from .censoring import Amount, Versus
from .curves import COSTS, VIRTUAL, Shape, shape, to_target
from .records import Record

Runs = Mapping[str, Mapping[int, Record]]
"""Variant -> seed -> run."""


@dataclass(frozen=True)
class Reaching:
    """How fast the variants of a setting reach a target.

    Args:
        target: the value of the reported metric.
        source: where it comes from, in words.
        reference: the variant that the others are compared with; ``None`` if it has no run here.
        amounts: variant -> cost -> seed -> what the run spent, by `COSTS`, under a clock also by
            `VIRTUAL`.
        medians: variant -> cost -> the median over seeds.
        versus: variant -> cost -> the comparison with the reference; none for the reference itself.
    """

    target: float
    source: str
    reference: str | None
    amounts: Mapping[str, Mapping[str, Mapping[int, Amount]]]
    medians: Mapping[str, Mapping[str, Amount]]
    versus: Mapping[str, Mapping[str, Versus]]

    def reached(self, variant: str) -> tuple[int, int]:
        """Return how many runs of a variant reached the target, and how many there are."""
        amounts = self.amounts[variant]["rounds"].values()
        return sum(one.exact for one in amounts), len(amounts)


@dataclass(frozen=True)
class Curves:
    """The learning curves of a setting in numbers.

    Args:
        shapes: variant -> seed -> the shape of a finished run's curve.
        by_class: the metric whose values per class are followed for forgetting; ``None`` if there
            is none, see `fedbench.study.curves.parts`.
        reaching: ``None`` without a target.
    """

    shapes: Mapping[str, Mapping[int, Shape]]
    by_class: str | None
    reaching: Reaching | None


def by_seed(records: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """Return one run for each variant and seed: a finished one, or else the longest."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        runs = found.setdefault(record.variant, {})
        other = runs.setdefault(record.seed, record)
        if (record.result is not None, len(record.rounds)) > (
            other.result is not None,
            len(other.rounds),
        ):
            runs[record.seed] = record
    return found


def curves(
    records: Sequence[Record],
    rule: Accuracy,
    metrics: Mapping[str, MetricFacts],
    reference: str,
    target: float | None,
    stop_at: float | None = None,
) -> Curves:
    """Return the learning curves of a setting in numbers.

    Args:
        records: its runs.
        rule: its accuracy rule.
        metrics: its metrics by name.
        reference: the variant to compare with.
        target: the value to reach; by default ``stop_at``, or else the reference's accuracy by the
            rule, the mean over its seeds.
        stop_at: the value that ends the runs, if any.
    """
    runs, higher = by_seed(records), metrics[rule.metric].higher_is_better
    name = _by_class(records, rule, metrics)
    followed = (name, metrics[name].higher_is_better) if name else None
    shapes = {
        variant: {
            seed: one
            for seed, run in of_seed.items()
            if run.result and (one := shape(run.rounds, rule, higher, followed))
        }
        for variant, of_seed in runs.items()
    }
    source = "given"
    if target is None and stop_at is not None:
        target, source = stop_at, "where the runs end (stop_at)"
    if target is None:
        target, source = _of_reference(runs.get(reference, {}), reference)
    if target is None:
        return Curves(shapes, name, None)
    return Curves(shapes, name, _reaching(runs, rule, higher, reference, target, source))


def _by_class(
    records: Sequence[Record], rule: Accuracy, metrics: Mapping[str, MetricFacts]
) -> str | None:
    """Return the first metric with values per class; ``None`` over clients, which have none."""
    if rule.population == "clients":
        return None
    scored = [one for record in records for one in record.rounds if view(one, rule)][:1]
    named = ((name, view(one, rule, name)) for one in scored for name in metrics)
    per_class = (n for n, s in named if s and any(isinstance(v, list) for v in s.domains.values()))
    return next(per_class, None)


def _of_reference(runs: Mapping[int, Record], reference: str) -> tuple[float | None, str]:
    """Return the mean accuracy of the reference's finished runs, and what it is in words."""
    values = [run.result.accuracy.mean for run in runs.values() if run.result]
    if not values:
        return None, ""
    seeds = "1 seed" if len(values) == 1 else f"mean over {len(values)} seeds"
    return fmean(values), f"final value of {reference}, {seeds}"


def _reaching(
    runs: Runs, rule: Accuracy, higher: bool, reference: str, target: float, source: str
) -> Reaching:
    amounts: dict[str, dict[str, dict[int, Amount]]] = {}
    histories = [run.rounds for of_seed in runs.values() for run in of_seed.values()]
    timed = any(one.time is not None for history in histories for one in history)
    spent = (*COSTS, VIRTUAL) if timed else COSTS
    for variant, of_seed in runs.items():
        costs = {s: to_target(run.rounds, rule, target, higher) for s, run in of_seed.items()}
        amounts[variant] = {
            # A run without a round has spent nothing, and no virtual time either.
            c: {seed: found.get(c, Amount(0.0, False)) for seed, found in costs.items()}
            for c in spent
        }
    medians = {
        variant: {cost: censoring.median([*of_seed.values()]) for cost, of_seed in costs.items()}
        for variant, costs in amounts.items()
    }
    versus: dict[str, dict[str, Versus]] = {v: {} for v in amounts if v != reference}
    base_variant = reference if reference in amounts else None
    for cost in spent if base_variant else ():
        base = amounts[reference][cost]
        found = {v: censoring.versus(amounts[v][cost], base) for v in versus}
        adjusted = statistics.holm([one.p for one in found.values()])
        for (variant, one), p in zip(found.items(), adjusted, strict=True):
            versus[variant][cost] = replace(one, adjusted_p=p)
    return Reaching(target, source, base_variant, amounts, medians, versus)
