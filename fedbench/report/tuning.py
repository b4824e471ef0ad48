"""What a tuning found, as tables of text: every renderer prints the same cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from .. import text
from ..config.yamlfile import inline
from ..store.files import json_ready, to_json
from ..study.spaces import sets
from ..study.trials import Trial, rank
from . import tuning_figures
from .content import NONE, TextTable, listed
from .exports import csv_text
from .part import Part

if TYPE_CHECKING:  # at run time they need Optuna, an extra
    from ..study.tuning import Tuned
    from ..study.tuning_plan import Plan


def number(plan: Plan, value: float | None, sign: str = "") -> str:
    """Return a score in its unit."""
    return NONE if value is None else text.score(value, plan.unit, sign)


def counted(plan: Plan) -> str:
    """Return what scores are counted in, in brackets: `` (%)`` or nothing."""
    return " (%)" if plan.unit == "percent" else ""


def metric(plan: Plan) -> str:
    """Return the name of what was searched for."""
    return next(iter(plan.configs.values())).accuracy.metric


def ended(trials: Sequence[Trial]) -> str:
    """Return how many trials there were, and how many were pruned or failed."""
    parts = [str(len(trials))]
    for status in ("pruned", "failed"):
        found = sum(trial.status == status for trial in trials)
        parts += [f"{found} {status}"] if found else []
    return ", ".join(parts)


def seeds_text(seeds: Sequence[int]) -> str:
    """Return ``seed 3``, ``seeds 1 to 5`` or ``seeds 1 and 7``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    run = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"seeds {f'{seeds[0]} to {seeds[-1]}' if run else listed(list(map(str, seeds)))}"


def values_text(trial: Trial) -> str:
    """Return a trial's values: ``sgd.lr=0.1, fedprox.mu=0.01``."""
    return ", ".join(sets(trial.values)) or NONE


def planned(plan: Plan) -> Iterator[str]:
    """Yield what will be searched and run, a line each."""
    budget, wanted = plan.budget, plan.wanted
    for method, spaces in plan.spaces.items():
        searched = "; ".join(f"{key} {space}" for key, space in spaces.items())
        yield f"{method}: {searched or 'no option to search, its default only'}"
    unit = "as many rounds as" if budget.prune else "at most"
    yield (
        f"each method: {unit} {budget.trials} trials of {budget.rounds} rounds on "
        f"{seeds_text(plan.search_seeds)}, proposed by {wanted.sampler} in batches of "
        f"{budget.batch}; the first is its default"
    )
    if wanted.shared:
        yield f"tuned once, on {wanted.methods[0]}: {', '.join(wanted.shared)}"
    why = "" if plan.given else " (--set clients.validation=0.2 would hold out more)"
    share = f"{100 * plan.share:g} % of each client's examples, which nobody trains on"
    yield f"searched for: {metric(plan)} on {share}{why}"
    yield f"compared afterwards: the best of each on {seeds_text(plan.seeds)}, on test data"
    runs, more = plan.most_runs(), len(plan.spaces) * len(plan.seeds)
    most = "the rounds of at most" if budget.prune else "at most"
    yield f"{most} {runs} runs of the search and {more} of the comparison"


def found(plan: Plan, tuned: Sequence[Tuned]) -> TextTable:
    """Return what each search spent and found."""
    rows = [
        (
            one.method,
            ended(one.trials),
            f"{one.spent:,}",
            number(plan, one.trials[0].score),
            f"{one.default_rank or NONE} of {len(one.trials)}",
            number(plan, one.best.score),
            values_text(one.best),
        )
        for one in tuned
    ]
    budget = f"{plan.budget.total:,} rounds"
    seeds = seeds_text(plan.search_seeds)
    notes = [
        f"{metric(plan)}{counted(plan)} on {tuned[0].examples:,} validation examples, {seeds}; "
        f"every method may spend {budget}, and a failed trial counts in full",
        *(_why_less(plan, one) for one in tuned if _is_less(plan, one)),
        *(
            f"{one.method}: {', '.join(sets(one.shared))} as tuned on {tuned[0].method}"
            for one in tuned
            if one.shared
        ),
    ]
    head = ("method", "trials", "rounds", "default", "its rank", "best", "values")
    title = "search on validation data"
    return TextTable("search", title, head, tuple(rows), tuple(notes))


def _is_less(plan: Plan, one: Tuned) -> bool:
    return plan.budget.total - one.spent >= plan.budget.trial


def _why_less(plan: Plan, one: Tuned) -> str:
    if not one.spaces:
        return f"{one.method} has no option to search, so only its default was run"
    return f"{one.method} spent less: there was nothing left to try in its space"


def gaps(plan: Plan, tuned: Sequence[Tuned]) -> TextTable:
    """Return the score of the best values from the search to test data under fresh seeds."""
    rows = []
    for one in tuned:
        fresh, test = (
            fmean(scores.values()) if (scores := one.fresh.get(split)) else None
            for split in ("validation", "test")
        )
        best = one.best.score
        lost = None if best is None or fresh is None else fresh - best
        cells = (number(plan, best), number(plan, fresh), number(plan, lost, "+"))
        rows.append((one.method, *cells, number(plan, test)))
    notes = [
        f"search: {seeds_text(plan.search_seeds)}, on which the values were chosen, so this score "
        f"is too good; fresh: {seeds_text(plan.seeds)}. Their difference is what the choice owes "
        "to chance, plus what the seeds differ in. Test data played no part in the choice",
    ]
    head = ("method", "validation, search", "validation, fresh", "difference", "test, fresh")
    title = "from the search to test data"
    return TextTable("search-to-test", title, head, tuple(rows), tuple(notes))


def importance(tuned: Sequence[Tuned]) -> TextTable | None:
    """Return how much each option sets the best trials apart; ``None`` if there is nothing."""
    rows = [
        (one.method, name, f"{share:.2f}")
        for one in tuned
        for name, share in one.importances.items()
    ]
    notes = [
        "PED-ANOVA (Watanabe et al., IJCAI 2023) of the best tenth of the complete trials, or the "
        "best 5; shares of each method add up to 1. Only for methods with two or more options and "
        "15 or more complete trials"
    ]
    head = ("method", "option", "importance")
    if not rows:
        return None
    title = "importance of the options"
    return TextTable("importance", title, head, tuple(rows), tuple(notes))


def trials(plan: Plan, one: Tuned) -> TextTable:
    """Return all trials of one method."""
    up = plan.higher_is_better
    rows = []
    for trial in one.trials:
        place = rank(one.trials, trial, up)
        best = " (best)" if trial is one.best else ""
        what = ("default" if trial.number == 0 else str(trial.number)) + best
        cells = (number(plan, trial.score), NONE if place is None else str(place))
        test = number(plan, one.test.get(trial.number))
        how = text.summary(trial.error) if trial.error else trial.status
        rows.append((what, values_text(trial), *cells, test, str(trial.rounds), how))
    head = ("trial", "values", "validation", "rank", "test", "rounds", "end")
    title = f"trials of {one.method}"
    notes = (
        f"{metric(plan)}{counted(plan)}, {seeds_text(plan.search_seeds)}",
        "test was read after the search and chose nothing",
    )
    return TextTable(f"trials-{one.method}", title, head, tuple(rows), notes)


def tables(plan: Plan, tuned: Sequence[Tuned]) -> list[TextTable]:
    """Return the tables of a search, without those of its trials."""
    every = (found(plan, tuned), gaps(plan, tuned), importance(tuned))
    return [table for table in every if table]


def part(plan: Plan, tuned: Sequence[Tuned]) -> Part:
    """Return the report's part on a search: tables, charts, ``trials.csv`` and ``search.json``."""
    return Part(
        name="search",
        title="Search",
        tables=tables(plan, tuned),
        folded=[trials(plan, one) for one in tuned],
        figures=tuning_figures.figures(plan, tuned, metric(plan)),
        look=tuning_figures.look(plan, tuned),
        files={
            "trials.csv": trials_csv(plan, tuned).encode(),
            "search.json": to_json(search_json(plan, tuned)),
        },
    )


def trial_rows(plan: Plan, tuned: Sequence[Tuned]) -> list[dict[str, Any]]:
    """Return a row for each trial.

    Its keys are ``method``; ``trial``, its number; ``end``, which is complete, pruned or failed;
    ``rounds``, which it is charged for; its scores on ``validation`` and ``test`` data; its
    ``rank``; whether it was ``chosen``; its ``error``; and the options that its method searches,
    by name.
    """
    return [
        {
            "method": one.method,
            "trial": trial.number,
            "end": trial.status,
            "rounds": trial.rounds,
            "validation": trial.score,
            "test": one.test.get(trial.number),
            "rank": rank(one.trials, trial, plan.higher_is_better),
            "chosen": trial is one.best,
            "error": trial.error,
            **trial.values,
        }
        for one in tuned
        for trial in one.trials
    ]


def trials_csv(plan: Plan, tuned: Sequence[Tuned]) -> str:
    """Return a line for each trial; an option that a method does not search is empty."""
    rows = trial_rows(plan, tuned)
    head = list(dict.fromkeys(key for row in rows for key in row))
    options = {key for one in tuned for key in one.spaces}

    def cell(row: dict[str, Any], key: str) -> object:
        value = row.get(key)
        if key in options and key in row:
            return inline(value)
        return "" if value is None else int(value) if key == "chosen" else value

    return csv_text(head, [[cell(row, key) for key in head] for row in rows])


def search_json(plan: Plan, tuned: Sequence[Tuned]) -> dict[str, Any]:
    """Return the protocol of a search and all that it found, as JSON-like data."""
    wanted, budget = plan.wanted, plan.budget
    protocol = {
        "metric": metric(plan),
        "higher_is_better": plan.higher_is_better,
        "validation_share": plan.share,
        "validation_examples": tuned[0].examples,
        "search_seeds": plan.search_seeds,
        "seeds": plan.seeds,
        "sampler": wanted.sampler,
        "sampler_seed": wanted.sampler_seed,
        "batch": budget.batch,
        "trials": budget.trials,
        "rounds_of_a_run": budget.rounds,
        "budget_in_rounds": budget.total,
        "pruning": budget.prune,
        "shared": wanted.shared,
    }
    methods = [
        {
            "method": one.method,
            "variant": one.variant,
            "spaces": {key: str(space) for key, space in one.spaces.items()},
            "shared": one.shared,
            "rounds_spent": one.spent,
            "best": one.best.number,
            "default_rank": one.default_rank,
            "importances": one.importances,
            "fresh": one.fresh,
            "trials": [
                {**json_ready(trial), "end": trial.status, "test": one.test.get(trial.number)}
                for trial in one.trials
            ],
        }
        for one in tuned
    ]
    return {"protocol": protocol, "methods": methods}
