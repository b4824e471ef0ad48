"""The runs of a search: each point is scored by runs in the store, none of which is made twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Literal

from ..config.changes import joined
from ..engine.evaluation import reported, views
from ..errors import ConfigError, TemporaryError
from ..plugins.registry import Registry
from ..splits import how_many
from ..store.directory import RunDirectory
from ..store.files import default_data_root
from . import grid as grids
from . import records, spaces
from .comparison import How, Say, carry_out
from .execute import Progress
from .grid import Job
from .records import Record
from .reuse import Reuse
from .search import Outcome, Point
from .spaces import Values
from .tuning_plan import Plan
from .warm import Warm


class Stopped(TemporaryError):
    """The machine ended runs of a search, which cannot continue without them.

    Args:
        progress: which runs, and why.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__("the machine ended runs of the search")
        self.progress = progress


Split = Literal["test", "validation"]


def score(record: Record, split: Split, upto: int, higher_is_better: bool) -> float | None:
    """Return a run's accuracy on a split of the data after ``upto`` rounds, by its own rule.

    ``None`` if nothing was scored on that split.
    """
    rule = replace(record.config.accuracy, split=split)
    scores = views(record.rounds[:upto], rule)
    return reported(rule, scores, higher_is_better).mean if scores else None


def validation_examples(record: Record) -> int:
    """Return how many examples the clients of a run hold out for validation; 0 if unknown."""
    rule, total = record.config.clients, 0
    for domains in (record.partition.counts if record.partition else {}).values():
        left = sum(map(sum, domains.values()))
        if rule.test_from == "own" and rule.test:
            left -= how_many(rule.test, left)
        total += how_many(rule.validation, left)
    return total


class Runs:
    """Scores points of a search by runs, as `fedbench.study.search.Evaluate`.

    Args:
        registry: what is installed.
        plan: the protocol.
        folder: the folder of the runs.
        how: how to carry them out.
        say: is called with a line if kept runs are repeated.
        show: is called with the progress of the whole search.
        warm: forks the runs of all batches.
    """

    def __init__(
        self, registry: Registry, plan: Plan, folder: Path, how: How, say: Say,
        show: Callable[[Progress], None], warm: Warm,
    ) -> None:  # fmt: skip
        self._registry, self._plan, self._folder = registry, plan, folder
        self._how, self._say, self._show, self._warm = how, say, show, warm
        self._reuse = Reuse(registry, how.data_root or default_data_root(), how.trust_old)
        self._before = Progress(plan.most_runs())
        self._told = False
        self._known: dict[str, list[Job]] = {}
        self._made: set[Path] = set()
        self.fixed: dict[str, Values] = {}
        """Method -> values that its search does not change."""

    def variant(self, point: Point) -> str:
        """Return the method with the point's values, as `fedbench compare` takes it."""
        values = {**self.fixed[point.method], **point.values}
        return joined(point.method, spaces.sets(values))

    def __call__(self, points: Sequence[Point], upto: int) -> list[Outcome]:
        """Run what is not finished yet up to a round; return the validation scores there.

        Raises:
            Stopped: when the machine ended some of the runs.
        """
        planned = [self._planned(point) for point in points]
        jobs = {job.path: job for one in planned if isinstance(one, list) for job in one}
        self._execute([job for job in jobs.values() if not self._there(job, upto)], upto)
        return [
            self._outcome(one, upto) if isinstance(one, list) else Outcome(None, one)
            for one in planned
        ]

    def test_score(self, point: Point) -> float | None:
        """Return the test score of a complete point; ``None`` if its runs were not tested."""
        up = self._plan.higher_is_better
        read = [self._read(job) for job in self._jobs(point)]
        scores = [score(record, "test", record.config.rounds, up) for record in read]
        found = [one for one in scores if one is not None]
        return fmean(found) if found else None

    def examples(self, point: Point) -> int:
        """Return how many validation examples the first run of a point has been scored on."""
        return validation_examples(self._read(self._jobs(point)[0]))

    def _planned(self, point: Point) -> list[Job] | str:
        """Return the runs of a point, or why its values cannot be used together."""
        try:
            return self._jobs(point)
        except ConfigError as error:
            return str(error)

    def _jobs(self, point: Point) -> list[Job]:
        plan, variant = self._plan, self.variant(point)
        if variant not in self._known:
            grid = plan.wanted.grid([variant], plan.search_seeds, plan.sets)
            self._known[variant] = grids.plan(self._registry, grid, self._folder)
        return self._known[variant]

    def _there(self, job: Job, upto: int) -> bool:
        """Return whether a paused run has the rounds that are asked for, and may be read as it is.

        A run that is to be finished is left to `execute`, which knows what finished runs may be
        reused.
        """
        directory = RunDirectory(job.path)
        paused = upto < self._plan.budget.rounds and not directory.failed
        return paused and directory.count_rounds() >= upto and not self._changes(job)

    def _changes(self, job: Job) -> Sequence[str]:
        """Return why a kept run is to be repeated; one that this search has made is not."""
        return () if job.path in self._made else self._reuse.changes(job)

    def _execute(self, jobs: Sequence[Job], upto: int) -> None:
        new = [job for job in jobs if job.path not in self._made]
        if not self._told and (line := self._reuse.summary(new)):
            self._say(line)
            self._told = True
        last = upto == self._plan.budget.rounds
        done = carry_out(
            self._registry, jobs, self._how, until=None if last else upto, warm=self._warm,
            show=lambda state: self._show(self._whole(state, last)), changes=self._changes,
        )  # fmt: skip
        self._made.update(job.path for job in jobs)
        if done.interrupted:
            raise Stopped(done)
        if last:
            self._before = self._whole(done, last)

    def _whole(self, state: Progress, last: bool) -> Progress:
        """Return the progress of the whole search, with the runs of this batch in ``state``."""
        before, now = self._before, state if last else Progress(0, running=state.running)
        done = before.done + now.done
        return replace(
            state,
            total=max(before.total, done),
            done=done,
            reused=before.reused + now.reused,
            failed=before.failed + now.failed,
        )

    def _outcome(self, jobs: Sequence[Job], upto: int) -> Outcome:
        """Return the mean validation score of a point's runs, or the first failure."""
        scores = []
        for job in jobs:
            record = self._read(job)
            if record.error:
                return Outcome(None, f"seed {record.seed}: {record.error}")
            found = score(record, "validation", upto, self._plan.higher_is_better)
            if found is None:
                raise ConfigError(f"{job.path}: no validation data was scored")
            scores.append(found)
        return Outcome(fmean(scores))

    def _read(self, job: Job) -> Record:
        """Read a run.

        Raises:
            ConfigError: when its files are damaged or contradict each other.
        """
        record = records.read(self._registry, job.path)
        if why := records.contradiction(self._registry, record):
            raise ConfigError(f"{job.path}: {why}; remove it, and the same command makes it again")
        return record
