"""Carry out a plan in this process, run after run: for plugins that no other process has."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from ..engine.start import start
from ..errors import temporary
from ..plugins.registry import Registry
from ..store.claim import Claim
from ..store.directory import RunDirectory
from ..text import last_words
from .execute import Progress, as_kept
from .grid import Job


def execute_here(
    registry: Registry,
    jobs: Sequence[Job],
    *,
    until: int | None = None,
    retry: bool,
    show: Callable[[Progress], None],
    changes: Callable[[Job], Sequence[str]],
    **more: Any,
) -> Progress:
    """Run what is not finished yet; reused, failed and interrupted mean what `execute` means.

    Args:
        registry: has the plugins of the jobs.
        jobs: the runs.
        until: pause each run after this round.
        retry: as for `execute`, like ``show`` and ``changes``.
        show: is called with the state after each round.
        changes: returns why a kept run is to be repeated.
        more: see `fedbench.engine.run.Run`.

    Returns:
        the final counts.
    """
    progress = Progress(len(jobs))
    for job in jobs:
        job.path.parent.mkdir(parents=True, exist_ok=True)
        claim = Claim(job.path.parent / f".{job.path.name}.lock")
        try:
            known = as_kept(job, progress, retry=retry, changes=changes)
            progress.add(**(known or _one(registry, job, until, progress, show, more)))
            show(progress)
        finally:
            claim.release()
    return progress


def _one(
    registry: Registry,
    job: Job,
    until: int | None,
    progress: Progress,
    show: Callable[[Progress], None],
    more: dict[str, Any],
) -> dict[str, int]:
    """Carry out one run, and record it when it fails; return what it adds to the counts."""
    directory = RunDirectory(job.path)
    try:
        run, _ = start(registry, job.config, job.path, **more)
        with closing(run.rounds()) as rounds:
            for result in rounds:
                progress.running[job.path.name] = (result.round, job.config.rounds)
                show(progress)
                if until is not None and until <= result.round < job.config.rounds:
                    break
        directory.went_on()
    except Exception as error:
        text = traceback.format_exc()
        if not temporary(error):
            directory.fail(job.config, last_words(text), text)
            return {"done": 1, "failed": 1}
        progress.interrupted[job.path] = directory.interrupt(last_words(text), text)
    finally:
        progress.running.pop(job.path.name, None)
    return {"done": 1}
