"""Carry out a plan in this process, run after run: for plugins that no other process has."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ..engine.start import start
from ..errors import temporary
from ..plugins.registry import Registry
from ..store.claim import Claim
from ..store.directory import RunDirectory
from ..text import last_words
from .execute import PATIENCE, Progress
from .grid import Job
from .reuse import set_aside


def execute_here(
    registry: Registry,
    jobs: Sequence[Job],
    *,
    retry: bool,
    show: Callable[[Progress], None],
    changes: Callable[[Job], Sequence[str]],
    **more: Any,
) -> Progress:
    """Run what is not finished yet; reused, failed and interrupted mean what `execute` means.

    Args:
        registry: has the plugins of the jobs.
        jobs: the runs.
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
            if changes(job):
                set_aside(job.path)
            directory = RunDirectory(job.path)
            if retry:
                directory.forget_ends()
            before = directory.read_interrupted()
            if directory.finished:
                progress.reused += 1
            elif directory.failed:
                progress.failed += 1
            elif before and before.times >= PATIENCE:
                progress.interrupted[job.path] = before
            else:
                _one(registry, job, directory, progress, show, more)
            progress.done += 1
            show(progress)
        finally:
            claim.release()
    return progress


def _one(
    registry: Registry,
    job: Job,
    directory: RunDirectory,
    progress: Progress,
    show: Callable[[Progress], None],
    more: dict[str, Any],
) -> None:
    """Carry out one run, and record it when it fails."""
    try:
        run, _ = start(registry, job.config, job.path, **more)
        for result in run.rounds():
            progress.running[job.path.name] = (result.round, job.config.rounds)
            show(progress)
    except Exception as error:
        text = traceback.format_exc()
        if temporary(error):
            progress.interrupted[job.path] = directory.interrupt(last_words(text), text)
        else:
            directory.fail(job.config, last_words(text), text)
            progress.failed += 1
    finally:
        progress.running.pop(job.path.name, None)
