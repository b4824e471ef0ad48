"""The search for the best options of several methods, each with the same budget.

It asks for trials in batches of a fixed size and records them in the order in which it asked, so
the trials do not depend on how many runs there are at a time. The first trial of every method is
its default. How a trial is scored is a function's business (`Evaluate`), so nothing here trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import sampling
from .sampling import Sampler
from .spaces import Spaces, Values
from .trials import Trial, best

RUNGS = 4
"""With pruning, a search looks at each trial after so many equal parts of its rounds."""


@dataclass(frozen=True)
class Budget:
    """What every method may spend.

    Args:
        trials: complete trials, or with pruning the rounds of as many.
        rounds: rounds of a run.
        seeds: runs of a trial.
        prune: whether a trial may end early, which leaves rounds for others.
        evaluate_every: rounds from one score to the next.
        batch: trials that are asked for at a time.
    """

    trials: int
    rounds: int
    seeds: int = 1
    prune: bool = False
    evaluate_every: int = 1
    batch: int = 4

    @property
    def trial(self) -> int:
        """Rounds of a complete trial, over its seeds."""
        return self.rounds * self.seeds

    @property
    def total(self) -> int:
        """Rounds of one method's search; it never spends more."""
        return self.trials * self.trial

    @property
    def rungs(self) -> tuple[int, ...]:
        """The rounds after which a trial may end, all of them scored; the last is the end."""
        parts = range(1, RUNGS + 1) if self.prune else (RUNGS,)
        ends = (math.ceil(self.rounds * part / RUNGS) for part in parts)
        every = self.evaluate_every
        return tuple(dict.fromkeys(min(self.rounds, math.ceil(e / every) * every) for e in ends))


class Point(NamedTuple):
    """A method, and values of its options to try."""

    method: str
    values: Values


@dataclass(frozen=True)
class Outcome:
    """What a point scored on validation data, or why it failed."""

    score: float | None
    error: str = ""


Evaluate = Callable[[Sequence[Point], int], Sequence[Outcome]]
"""Scores points after a number of rounds, in their order."""


class Search:
    """The search of one method.

    Args:
        method: its name.
        spaces: the values of each option; with none, only the default is tried.
        default: the method's own values of these options.
        budget: what it may spend.
        sampler: how it proposes.
    """

    def __init__(
        self, method: str, spaces: Spaces, default: Values, budget: Budget, sampler: Sampler
    ) -> None:
        self.method, self.spaces, self.default = method, spaces, default
        self.budget, self.sampler = budget, sampler
        self.trials: list[Trial] = []

    @property
    def spent(self) -> int:
        """Rounds that its trials are charged for."""
        return sum(trial.rounds for trial in self.trials)

    @property
    def best(self) -> Trial:
        """The best trial so far."""
        return best(self.trials, self.sampler.higher_is_better)

    def ask(self) -> list[Values]:
        """Return the next batch; empty when the budget, or what there is to try, is used up.

        A batch is no larger than what is left of the budget if none of its trials ends early.
        """
        left = (self.budget.total - self.spent) // self.budget.trial
        count = min(self.budget.batch, left)
        first: list[Values] = [] if self.trials else [self.default]
        if not self.spaces or count <= len(first):
            return first
        more = sampling.propose(self.sampler, self.spaces, self.trials, first, count - len(first))
        return [*first, *more]

    def prunes(self, curve: dict[int, float]) -> bool:
        """Return whether a trial with this curve ends, judged by the batches before its own."""
        up = self.sampler.higher_is_better
        return sampling.prunes(self.spaces, self.trials, curve, up)


@dataclass
class _UnderWay:
    """A trial that is being run."""

    search: Search
    number: int
    values: Values
    curve: dict[int, float] = field(default_factory=dict)
    error: str = ""

    def goes_on(self, rung: int, found: Outcome) -> bool:
        """Take in what it scored at a rung; return whether it runs on if there is another."""
        if found.score is None:
            self.error = found.error
            return False
        self.curve[rung] = found.score
        return rung == self.search.budget.rounds or not self.search.prunes(self.curve)

    def finished(self) -> Trial:
        """Return the trial that it was; a failed one is charged in full."""
        budget = self.search.budget
        end = max(self.curve, default=0)
        rounds = budget.trial if self.error else end * budget.seeds
        score = None if self.error else self.curve.get(budget.rounds)
        return Trial(self.number, self.values, rounds, score, self.curve, self.error)


def advance(searches: Sequence[Search], evaluate: Evaluate) -> bool:
    """Carry out one batch of each search, all at once; return whether there was anything to do."""
    batch = [
        _UnderWay(search, number, values)
        for search in searches
        for number, values in enumerate(search.ask(), len(search.trials))
    ]
    alive = batch
    for rung in searches[0].budget.rungs if searches else ():
        points = [Point(one.search.method, one.values) for one in alive]
        found = evaluate(points, rung) if points else ()
        alive = [one for one, f in zip(alive, found, strict=True) if one.goes_on(rung, f)]
    for one in batch:
        one.search.trials.append(one.finished())
    return bool(batch)
