"""The tables of learning curves: what a target costs, and area, best round and forgetting.

Like `fedbench.report.content`, as text that every renderer prints unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, median

from ..study import statistics
from ..study.analysis import Group
from ..study.censoring import MIN_DECIDED, Amount, Versus
from ..study.curves import VIRTUAL, Shape
from ..study.targets import Reaching
from ..text import Unit, duration, score, size
from .content import NONE, TextTable, p_value, reached_text, trouble

CALLED = {"seconds": "time", VIRTUAL: "virtual time"}
"""What tables call a cost, where that is not its name."""


def curve_tables(group: Group) -> list[TextTable]:
    """Return the tables of a setting's learning curves, those that have something to show."""
    found = [_virtual_times(group), _shapes(group)]
    if reaching := group.curves.reaching:
        found = [_costs(group, reaching), _versus(group, reaching), *found]
    return [one for one in found if one.rows]


def amount(value: Amount, cost: str) -> str:
    """Return what was spent in the cost's unit, with ``>`` before a bound; `NONE` if unknown."""
    if not math.isfinite(value.value):
        return NONE
    forms: Mapping[str, Callable[[float], str]] = {
        "bytes": size,
        "seconds": duration,
        VIRTUAL: duration,
    }
    text = forms.get(cost, "{:g}".format)(value.value)
    return text if value.exact else f"> {text}"


def _costs(group: Group, reaching: Reaching) -> TextTable:
    rows = []
    for variant in group.variants:
        reached, runs = reaching.reached(variant)
        medians = reaching.medians[variant]
        cells = (amount(median, cost) for cost, median in medians.items())
        rows.append((variant, f"{reached} of {runs}", *cells))
    better = "" if group.higher_is_better else " or less"
    return TextTable(
        "target",
        f"to {reached_text(group, reaching.target)}{better}",
        ("variant", "reached by", *(CALLED.get(cost, cost) for cost in _spent(reaching))),
        tuple(rows),
        tuple(_notes_on_costs(group, reaching)),
    )


def _notes_on_costs(group: Group, reaching: Reaching) -> Iterable[str]:
    yield f"target: {reaching.source}"
    yield (
        "median over runs of what was spent until the first scored round whose "
        f"{group.metric} reaches the target, on {group.scored}: rounds, bytes of all clients in "
        "both directions, wall-clock time of the rounds, which depends on the machine and what "
        "else runs on it" + (", virtual time" if VIRTUAL in _spent(reaching) else "")
    )
    if any(not one.exact for costs in reaching.medians.values() for one in costs.values()):
        yield (
            "> is a lower bound: a run that did not reach the target counts as more than all that "
            "it spent, also if it failed or is not finished"
        )
    lacking = [(v, trouble(group.missing(v))) for v in group.variants if group.missing(v)]
    if lacking:
        yield "runs without a result: " + ", ".join(f"{v} ({what})" for v, what in lacking)


def _spent(reaching: Reaching) -> Iterable[str]:
    """Return what runs spend: under a clock, also virtual time."""
    return next(iter(reaching.medians.values()))


def _versus(group: Group, reaching: Reaching) -> TextTable:
    rows = [
        (variant, CALLED.get(cost, cost), *_compared(reaching.versus[variant][cost]))
        for variant in group.variants
        if variant in reaching.versus
        for cost in _spent(reaching)
        if cost in reaching.versus[variant]
    ]
    return TextTable(
        "target-differences",
        f"compared with {reaching.reference}, to {reached_text(group, reaching.target)}",
        ("variant", "cost", "ratio", "95 % interval", "wins/ties/losses", "p (Holm)"),
        tuple(rows),
        (
            f"ratio: the variant's cost over that of {reaching.reference} on the same seed, "
            "geometric mean and t-interval on logarithms; "
            f"{NONE} where a run did not reach the target",
            "wins, ties and losses count seeds: a win needs less; seeds on which runs that did not "
            "reach the target leave that open count as ties",
            f"sign test on wins and losses, if there are {MIN_DECIDED} or more, p corrected by "
            "Holm over the variants",
        ),
    )


def _compared(one: Versus) -> tuple[str, ...]:
    interval = NONE if one.low is None or one.high is None else f"[{one.low:.2f}, {one.high:.2f}]"
    ratio = NONE if one.ratio is None else f"{one.ratio:.2f}"
    wins = f"{one.wins}/{one.ties}/{one.losses}"
    return ratio, interval, wins, p_value(one.adjusted_p)


def _shapes(group: Group) -> TextTable:
    rows = []
    for variant in group.variants:
        shapes = list(group.curves.shapes.get(variant, {}).values())
        if shapes:
            rows.append((variant, *_shape(group, shapes)))
    return TextTable(
        "curves",
        f"learning curves, {group.metric}{' in percent' if group.unit == 'percent' else ''}",
        ("variant", "area", "best", "in round", "drop", "below peak"),
        tuple(rows),
        tuple(_notes_on_shapes(group)),
    )


def _shape(group: Group, shapes: Sequence[Shape]) -> tuple[str, ...]:
    unit = group.units[group.curves.by_class or group.metric]
    return (
        _spread([one.area for one in shapes], group.unit),
        _spread([one.best for one in shapes], group.unit),
        f"{median(one.best_round for one in shapes):g}",
        _spread([one.drop for one in shapes], unit),
        _spread([one.loss for one in shapes], unit),
    )


def _virtual_times(group: Group) -> TextTable:
    """Return what runs took under a clock; without rows if there is none."""
    rows = []
    for variant in group.variants:
        records = [r for r in group.records if r.variant == variant and r.result]
        found = [r.result.virtual_time for r in records if r.result and r.result.virtual_time]
        if found:
            used = sum(one.turns.get("used", 0) for one in found)
            ended = sum(sum(one.turns.values()) for one in found)
            late = sum(n * count for one in found for n, count in one.staleness.items())
            rows.append(
                (
                    variant,
                    duration(median(one.seconds for one in found)),
                    f"{used / len(found):g}",
                    f"{(ended - used) / len(found):g}",
                    f"{late / used:.2f}" if used else NONE,
                    f"{100 * fmean(one.utilisation for one in found):.0f} %",
                )
            )
    return TextTable(
        "virtual-time",
        "virtual time of the runs",
        ("variant", "virtual time", "turns used", "lost", "rounds late", "at work"),
        tuple(rows),
        (
            "virtual time: when the last round ended, median over seeds; turns: mean over seeds; "
            "lost: they failed, or were dropped because they were late; rounds late: mean over "
            "the turns used",
            "at work: how long clients worked, as a share of the time that as many clients had as "
            "were ever at work together",
        ),
    )


def _spread(values: Sequence[float | None], unit: Unit) -> str:
    """Return mean and standard deviation of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return NONE
    found = statistics.summary(known)
    std = "" if found.std is None else f" ± {score(found.std, unit)}"
    return f"{score(found.mean, unit)}{std}"


def _notes_on_shapes(group: Group) -> Iterable[str]:
    if group.stop_at is not None:
        yield "WARNING: not comparable between runs that end after different rounds (stop_at)"
    yield "mean ± standard deviation over the seeds of finished runs; round: their median"
    yield "area: mean of the curve from the first to the last scored round, by the trapezoidal rule"
    yield f"best: the best scored round, selected on the {group.scored} that it is scored on"
    if group.setting["accuracy"]["population"] == "clients":
        what = f"{group.metric} of each client"
    elif group.curves.by_class:
        what = f"{group.curves.by_class} of each class and domain"
    else:
        what = f"{group.metric} of each domain"
    yield (
        f"forgetting, of the {what}, on average: drop is how much worse it gets from one "
        "scored round to the next, gains counting as 0; below peak is how much worse it is in the "
        "last round than in its best earlier one"
    )
