"""A comparison from start to end: a planned grid is carried out, read back and analysed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plugins.registry import Registry
from ..store.files import default_data_root
from . import grid as grids
from .analysis import Analysis, analyse
from .earlier import Changes, earlier
from .execute import Progress, execute
from .grid import Grid, Job
from .here import execute_here
from .outlook import outlook
from .reuse import Reuse
from .warm import Parent, Warm

Say = Callable[[str], object]
"""What is called with each line that a user should read."""

Display = AbstractContextManager[Callable[[Progress], None]]
"""A display of progress, open while runs are carried out."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How the runs of a comparison are carried out; nothing here changes their results.

    Args:
        jobs: how many run at the same time; default one per core, but only one on each GPU. Runs
            with plugins that are classes in memory run one after the other, in this process.
        retry: whether to try again what failed, or was interrupted too often.
        trust_old: whether to reuse finished runs even if code, data, versions or arithmetic have
            changed since.
        data_root: where data sets look for files.
        checkpoint_rounds: also write a checkpoint after this many rounds.
        checkpoint_minutes: write one at the end of a round when the last one is this old.
        keep_checkpoints: whether to keep every checkpoint.
        parent: what forks the runs, if it is there already; `fedbench.cli.warm` has one.
    """

    jobs: int | None = None
    retry: bool = False
    trust_old: bool = False
    data_root: Path | None = None
    checkpoint_rounds: int | None = None
    checkpoint_minutes: float = 1.0
    keep_checkpoints: bool = False
    parent: Parent | None = None

    def words(self) -> Iterator[str]:
        """Yield the flags of ``fedbench run`` that say the same about checkpoints."""
        yield from ("--checkpoint-minutes", str(self.checkpoint_minutes))
        if self.checkpoint_rounds:
            yield from ("--checkpoint-rounds", str(self.checkpoint_rounds))
        if self.keep_checkpoints:
            yield "--keep-checkpoints"


@dataclass(frozen=True)
class Outcome:
    """What has come of a comparison.

    Args:
        analysis: of its runs and of earlier ones of the same settings; ``None`` when the machine
            ended every run before it began.
        progress: how the runs ended.
        failed: whether any run of the comparison failed.
    """

    analysis: Analysis | None
    progress: Progress
    failed: bool


def compare(
    registry: Registry,
    grid: Grid,
    planned: Sequence[Job],
    how: How,
    *,
    say: Say = lambda line: None,
    display: Display | None = None,
    alone: bool = False,
) -> Outcome:
    """Carry out the runs of a grid that are not finished yet, and analyse all of them.

    Earlier finished runs in the same folder that share a setting with the grid are analysed too,
    unless the grid is to be analysed ``alone``.

    Args:
        registry: what is installed.
        grid: what to compare.
        planned: its runs, by `fedbench.study.grid.plan`.
        how: how to carry them out.
        say: is called with each line on runs that are repeated, added or left out.
        display: shows the progress.
        alone: whether to leave out earlier runs.

    Raises:
        ConfigError: for data that cannot be read, or runs that contradict each other.
    """
    changes = _changes(registry, planned, how, say)
    with display or nullcontext(lambda progress: None) as show:
        done = carry_out(registry, planned, how, show=show, changes=changes)
    found = grids.collect(registry, planned, say)
    added, line = ([], "") if alone else earlier(registry, planned, found, changes)
    if line:
        say(line)
    failed = any(record.status == "failed" for record in found)
    if not found and done.interrupted:
        return Outcome(None, done, failed)
    names = grids.labels(registry, planned)
    analysis = analyse(
        registry,
        [*found, *added],
        variants=list(dict.fromkeys(names.values())),
        reference=names[grid.reference or grid.methods[-1]],
        test=grid.test,
        target=grid.target,
    )
    return Outcome(analysis, done, failed)


def carry_out(
    registry: Registry,
    planned: Sequence[Job],
    how: How,
    *,
    until: int | None = None,
    warm: Warm | None = None,
    **more: Any,
) -> Progress:
    """Run what is not finished, in other processes if these can have the plugins.

    Args:
        registry: what is installed.
        planned: the runs.
        how: how to carry them out.
        until: pause each run after this round.
        warm: forks the runs of other processes.
        more: ``show`` and ``changes`` of `execute`.

    Returns:
        the final counts.
    """
    if not any(job.config.in_memory for job in planned):
        words = [*how.words(), *([] if until is None else ["--until", str(until)])]
        return execute(
            planned, workers=how.jobs, retry=how.retry, data_root=how.data_root, words=words,
            warm=warm, parent=how.parent, **more,
        )  # fmt: skip
    return execute_here(
        registry,
        planned,
        until=until,
        retry=how.retry,
        data_root=how.data_root,
        checkpoint_rounds=how.checkpoint_rounds,
        checkpoint_seconds=60 * how.checkpoint_minutes,
        keep_checkpoints=how.keep_checkpoints,
        **more,
    )


def forecast(registry: Registry, planned: Sequence[Job], how: How) -> list[str]:
    """Return what `compare` would run and what it would reuse, a line per method and more."""
    lines: list[str] = []
    changes = _changes(registry, planned, how, lines.append)
    return [*outlook(registry, planned, retry=how.retry, changes=changes), *lines]


def _changes(registry: Registry, planned: Sequence[Job], how: How, say: Say) -> Changes:
    """Return what says why a kept run is repeated, after a line on all that will be."""
    reuse = Reuse(registry, how.data_root or default_data_root(), how.trust_old)
    if line := reuse.summary(planned):
        say(line)
    return reuse.changes
