"""Tuning: every method is searched with the same budget, then the best of each are compared.

What the search chooses on validation data is trained again under fresh seeds, with the same share
held out, and scored on test data. The runs are kept like those of a comparison, so none is made
twice, and an interrupted search continues from them. The comparison is of the best values alone:
what an earlier, perhaps shorter search in the same folder chose is not in its tables.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..plugins.registry import Registry
from ..store.claim import Claim
from . import comparison
from . import grid as grids
from .comparison import Display, How, Outcome, Say
from .grid import Job
from .sampling import Sampler, Storage, importances
from .search import Point, Search, advance
from .spaces import Spaces, Values
from .trials import Trial, rank
from .tuning_plan import Plan
from .tuning_runs import Runs, Split, score
from .warm import Warm

FOLDER = "search"
"""The folder of the search's runs and of Optuna's file, beside the runs of the comparison."""


@dataclass(frozen=True)
class Tuned:
    """What the search of one method found.

    Args:
        method: its name.
        variant: the method with the best values, as `fedbench compare` takes it.
        spaces: what was searched.
        shared: values that were tuned on the first method and are fixed here.
        trials: all of them, in order; the first is the default.
        best: the best of them by its validation score.
        default_rank: the default's rank; ``None`` if it has no score.
        importances: option -> its share; empty if there were too few trials.
        test: number of a complete trial -> its test score, which was read after the search.
        examples: how many validation examples a trial is scored on, under the first seed.
        fresh: split -> seed -> score of the best values under the seeds of the comparison.
    """

    method: str
    variant: str
    spaces: Spaces
    shared: Values
    trials: Sequence[Trial]
    best: Trial
    default_rank: int | None
    importances: Mapping[str, float]
    test: Mapping[int, float]
    examples: int
    fresh: Mapping[Split, Mapping[int, float]] = field(default_factory=dict)

    @property
    def spent(self) -> int:
        """Rounds that the trials are charged for."""
        return sum(trial.rounds for trial in self.trials)


@dataclass(frozen=True)
class Tuning:
    """A finished search, and the comparison of what it chose.

    Args:
        plan: what was asked for.
        methods: what each search found.
        outcome: the comparison.
    """

    plan: Plan
    methods: Sequence[Tuned]
    outcome: Outcome


def tune(
    registry: Registry,
    plan: Plan,
    out: Path,
    how: How,
    *,
    say: Say = lambda line: None,
    display: Callable[[], Display | None] = lambda: None,
    found: Callable[[Sequence[Tuned]], object] = lambda tuned: None,
) -> Tuning:
    """Search each method's options, then compare the best of each under fresh seeds.

    Args:
        registry: what is installed.
        plan: what to tune, by `fedbench.study.tuning_plan.plan`.
        out: the folder of all runs.
        how: how to carry them out.
        say: is called with each line on runs that are repeated, added or left out.
        display: makes a display of progress, once for the search and once for the comparison.
        found: is called with what the searches found, before the comparison.

    Raises:
        Stopped: when the machine ended runs of the search; the same call continues it.
        ConfigError: for data that cannot be read, or damaged runs.
    """
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    claim = Claim(folder / ".search.lock")
    try:
        shown = display() or nullcontext(lambda progress: None)
        warm = Warm(threading.Event(), how.data_root, how.parent)
        with Storage(folder / "trials.db") as storage, warm, shown as show:
            tuned = _searches(plan, Runs(registry, plan, folder, how, say, show, warm), storage)
    finally:
        claim.release()
    found(tuned)
    names = {one.method: one.variant for one in tuned}
    wanted = replace(plan.wanted, reference=names[plan.reference])
    grid = wanted.grid([one.variant for one in tuned], plan.seeds, plan.final_sets)
    planned = grids.plan(registry, grid, out)
    outcome = comparison.compare(
        registry, grid, planned, how, say=say, display=display(), alone=True
    )
    return Tuning(
        plan, [_with_fresh(one, planned, outcome, plan.higher_is_better) for one in tuned], outcome
    )


def _searches(plan: Plan, runs: Runs, storage: Storage) -> list[Tuned]:
    """Carry out the searches: all at once, or the first one first if it tunes shared options."""
    first, *others = plan.configs
    shared: dict[str, object] = {}
    tuned: list[Tuned] = []
    stages = [[first], others] if plan.wanted.shared else [[first, *others]]
    for stage in filter(None, stages):
        fixed = dict(shared)
        for method in stage:
            runs.fixed[method] = fixed
        searches = [_search(plan, method, fixed) for method in stage]
        going = True
        while going:
            going = advance(searches, runs)
            for search in searches:
                name = plan.name(search.method, fixed)
                storage.keep(name, search.spaces, search.trials, plan.higher_is_better)
        tuned += [_tuned(plan, runs, search, fixed) for search in searches]
        shared = {key: tuned[0].best.values[key] for key in plan.wanted.shared}
    return tuned


def _search(plan: Plan, method: str, fixed: Values) -> Search:
    found = {key: space for key, space in plan.spaces[method].items() if key not in fixed}
    default = {key: plan.defaults[method][key] for key in found}
    wanted = plan.wanted
    how = Sampler(wanted.sampler, wanted.sampler_seed, wanted.trials, plan.higher_is_better)
    return Search(method, found, default, plan.budget, how)


def _tuned(plan: Plan, runs: Runs, search: Search, fixed: Values) -> Tuned:
    up, trials, best = plan.higher_is_better, search.trials, search.best
    return Tuned(
        method=search.method,
        variant=runs.variant(Point(search.method, best.values)),
        spaces=search.spaces,
        shared=fixed,
        trials=trials,
        best=best,
        default_rank=rank(trials, trials[0], up),
        importances=importances(search.spaces, trials, up),
        test={
            trial.number: found
            for trial in trials
            if trial.status == "complete"
            and (found := runs.test_score(Point(search.method, trial.values))) is not None
        },
        examples=runs.examples(Point(search.method, trials[0].values)),
    )


def _with_fresh(one: Tuned, planned: Sequence[Job], outcome: Outcome, up: bool) -> Tuned:
    """Add the scores of the best values under the fresh seeds."""
    records = {
        record.path: record
        for group in (outcome.analysis.groups if outcome.analysis else ())
        for record in group.records
        if record.result
    }
    mine = [
        records[job.path]
        for job in planned
        if one.variant in (job.method, *job.also) and job.path in records
    ]
    fresh: dict[Split, dict[int, float]] = {"validation": {}, "test": {}}
    for record in mine:
        for split, scores in fresh.items():
            found = score(record, split, record.config.rounds, up)
            if found is not None:
                scores[record.seed] = found
    return replace(one, fresh=fresh)
