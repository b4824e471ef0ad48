"""Run a plan: each run in a process of its own, several at a time; finished runs are reused.

The processes of a plan with several runs are forked by one that has imported everything and holds
the data, see `fedbench.study.warm`.

Every run has a lock file: two comparisons in one folder wait for each other's runs instead of
repeating or corrupting them.

A run that ends with an error of its own has failed. A run that the machine ended (it was killed, or
ran out of memory or disk space, or lost its workers) was interrupted: the same command resumes it,
until that has happened `PATIENCE` times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, TypeAlias

from ..device import cores
from ..errors import ConfigError
from ..store import checkpoint
from ..store.claim import Busy, Claim
from ..store.contents import Interrupted
from ..store.directory import RunDirectory
from ..store.files import write_atomic
from ..text import last_words
from . import PARENT, TEMPORARY
from .grid import Job
from .reuse import set_aside
from .warm import SUPPORTED, Forked, Parent, Warm, python

PATIENCE = 3
"""How often a run may be interrupted before it is no longer tried again."""

SETTLE = 1.0
"""Seconds to wait, after a signal ended a run, for the same signal to reach this process."""

Process: TypeAlias = "subprocess.Popen[bytes] | Forked"
"""The process of a run."""


@dataclass
class Progress:
    """The state of a comparison, for a display.

    ``done`` counts every run that is dealt with, ``reused`` and ``failed`` some of those.
    """

    total: int
    done: int = 0
    reused: int = 0
    failed: int = 0
    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name of a run -> (finished rounds, all rounds)."""
    interrupted: dict[Path, Interrupted] = field(default_factory=dict)
    """Directory of a run that the machine ended -> how often, and why."""

    @property
    def left_alone(self) -> dict[Path, Interrupted]:
        """The interrupted runs that are tried again only with ``retry``."""
        return {path: end for path, end in self.interrupted.items() if end.times >= PATIENCE}

    def add(self, **counts: int) -> None:
        """Add to the counts, by name."""
        for name, more in counts.items():
            setattr(self, name, getattr(self, name) + more)


def execute(
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    retry: bool = False,
    data_root: Path | None = None,
    words: Sequence[str] = (),
    show: Callable[[Progress], None] = lambda _: None,
    changes: Callable[[Job], Sequence[str]] = lambda _: (),
    warm: Warm | None = None,
    parent: Parent | None = None,
) -> Progress:
    """Run what is not finished yet, each run in a process of its own, ``workers`` at a time.

    By default, as many run at a time as this process may use cores, but only one on each GPU.
    A run that fails, or that the machine has ended `PATIENCE` times, is tried again only with
    ``retry``, which resumes it where that is possible. An interrupt stops the processes; unfinished
    runs continue from their checkpoints next time. ``words`` are flags for every ``fedbench run``.
    A kept run for which ``changes`` returns something is set aside and repeated, see
    `fedbench.study.reuse`. One ``warm`` can serve several calls; by default each has its own, if it
    has several jobs, which begins with ``parent``.

    Returns:
        the final counts.
    """
    more = [*words, *(["--data-root", str(data_root)] if data_root else [])]
    queues = _queues(jobs, workers)
    total = sum(number for _, number in queues)
    stop = warm.stop if warm else threading.Event()
    if total > 1:  # runs take the cores; the bits are the same
        more += ["--executor", "inline"]
    mine = nullcontext(warm) if warm else Warm(stop, data_root, parent)
    with mine as shared, ThreadPoolExecutor(max_workers=total or 1) as threads:
        helper = shared if SUPPORTED and (warm or len(jobs) > 1) else None
        execution = _Execution(len(jobs), retry, more, show, changes, stop, helper)
        futures = [threads.submit(execution.work, q) for q, number in queues for _ in range(number)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            raise
    return execution.progress


def _queues(jobs: Sequence[Job], workers: int | None) -> list[tuple[deque[Job], int]]:
    """Return queues of jobs, each with the number of its jobs that run at a time.

    Jobs on different devices do not wait for each other, unless ``workers`` gives the number.
    """
    devices: dict[str, deque[Job]] = {}
    for job in jobs:
        name = job.config.device
        device = "" if workers else name if ":" in name else f"{name}:0"
        devices.setdefault(device, deque()).append(job)
    numbers = (workers or (cores() if device == "cpu:0" else 1) for device in devices)
    return [(q, min(n, len(q))) for q, n in zip(devices.values(), numbers, strict=True)]


class _Execution:
    """Carries out runs; shared by the threads that do so."""

    def __init__(
        self,
        total: int,
        retry: bool,
        words: Sequence[str],
        show: Callable[[Progress], None],
        changes: Callable[[Job], Sequence[str]],
        stop: threading.Event,
        warm: Warm | None,
    ) -> None:
        self.progress, self.stop, self._warm = Progress(total), stop, warm
        self._lock = threading.Lock()
        self._retry, self._words, self._show, self._changes = retry, words, show, changes

    def work(self, waiting: deque[Job]) -> None:
        """Carry out the ``waiting`` jobs one after the other until none is left."""
        while not self.stop.is_set():
            try:
                job = waiting.popleft()
            except IndexError:
                return
            job.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                claim = Claim(job.path.parent / f".{job.path.name}.lock")
            except Busy:  # another comparison runs it: look again later
                waiting.append(job)
                self.stop.wait(1.0)
                continue
            try:
                self._update(**self._one(job))
            finally:
                claim.release()

    def _update(self, **counts: int) -> None:
        with self._lock:
            self.progress.add(**counts)
            self._show(self.progress)

    def _one(self, job: Job) -> dict[str, int]:
        """Carry out one run, if necessary; return what it adds to the counts."""
        directory = RunDirectory(job.path)
        known = as_kept(job, self.progress, retry=self._retry, changes=self._changes)
        return known or self._ended(job, directory, *self._run(job, directory))

    def _ended(self, job: Job, directory: RunDirectory, status: int, text: str) -> dict[str, int]:
        """Record how a run's process ended; return what that adds to the counts."""
        if status == 0 or directory.finished:  # it may have been killed after its last round
            directory.went_on()
            return {"done": 1}
        by = _signal(status)
        # A signal to all processes of a job may end the runs before it reaches this process.
        if self.stop.is_set() or (by and self.stop.wait(SETTLE)):
            return {}
        reason = f"ended by {by}" if by else last_words(text) or f"ended with status {status}"
        if not by and status != TEMPORARY:
            directory.fail(job.config, reason, text)
            return {"done": 1, "failed": 1}
        end = Interrupted(1, reason)
        with suppress(OSError):  # a full disk may not even have room for this record
            end = directory.interrupt(reason, text)
        self.progress.interrupted[job.path] = end
        return {"done": 1}

    def _run(self, job: Job, directory: RunDirectory) -> tuple[int, str]:
        """Run the job in a process; return its exit status and what it printed."""
        file = job.path.parent / f".{job.path.name}.yaml"
        log = job.path.parent / f".{job.path.name}.log"
        write_atomic(file, job.config.to_yaml().encode())
        words = ["run", str(file), "--out", str(job.path), "--quiet", *self._words]
        log.unlink(missing_ok=True)
        with log.open("xb") as output:  # a new file, never the target of a link
            process = self._begin(job, words, output)
            self._follow(process, job, directory)
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        log.unlink()
        file.unlink()
        assert process.returncode is not None
        return process.returncode, text

    def _begin(self, job: Job, words: Sequence[str], output: IO[bytes]) -> Process:
        """Start a run: from the warm parent if possible, else as a program of its own.

        The run has its own process group, so that Ctrl-C on a terminal reaches it only once, from
        here. It ends when this process does, for whatever reason.
        """
        forked = None
        if self._warm and job.config.device == "cpu":  # no GPU can be used after a fork
            forked = self._warm.fork(words, job.config.data, output)
        return forked or subprocess.Popen(
            [*python(), "-m", "fedbench", *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, PARENT: str(os.getpid())},
            process_group=0,
        )

    def _follow(self, process: Process, job: Job, directory: RunDirectory) -> None:
        """Show the rounds of a process until it ends, or end it when everything has to stop."""
        running = self.progress.running
        try:
            while process.poll() is None and not self.stop.is_set():
                running[job.path.name] = (directory.count_rounds(), job.config.rounds)
                self._update()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
        finally:
            running.pop(job.path.name, None)
            _end(process)


Standing: TypeAlias = Literal["new", "finished", "changed", "failed", "left alone", "retried"]
"""What becomes of a planned run: ``new`` is run or resumed, ``changed`` set aside and repeated."""


def standing(job: Job, *, retry: bool, changes: Callable[[Job], Sequence[str]]) -> Standing:
    """Return what would become of a planned run, from what is kept of it; see `execute`."""
    directory = RunDirectory(job.path)
    if changes(job):
        return "changed"
    if directory.finished:
        return "finished"
    before = directory.read_interrupted()
    if retry and (directory.failed or before):
        return "retried"
    if directory.failed:
        return "failed"
    return "left alone" if before and before.times >= PATIENCE else "new"


def as_kept(
    job: Job, progress: Progress, *, retry: bool, changes: Callable[[Job], Sequence[str]]
) -> dict[str, int]:
    """Return what a run adds to the counts as it is kept; nothing when it has to be run.

    One that is to be repeated, see `execute`, is set aside; one that is to be tried again is
    prepared for that. ``progress`` gets those that the machine has ended too often.
    """
    match standing(job, retry=retry, changes=changes):
        case "finished":
            return {"done": 1, "reused": 1}
        case "failed":
            return {"done": 1, "failed": 1}
        case "left alone":
            before = RunDirectory(job.path).read_interrupted()
            assert before
            progress.interrupted[job.path] = before
            return {"done": 1}
        case "changed":
            set_aside(job.path)
        case "retried":
            try:
                _prepare_retry(job)
            except Busy as error:
                progress.interrupted[job.path] = Interrupted(1, str(error))
                return {"done": 1}
    return {}


def _prepare_retry(job: Job) -> None:
    """Prepare a failed or interrupted run to be tried again, from its checkpoint if possible.

    Raises:
        Busy: when another process is running in its directory.
    """
    directory = RunDirectory(job.path)
    claim = directory.lock()
    try:
        kept = checkpoint.read(job.path, job.config).state.round
        directory.cut_rounds(kept)
        directory.forget_ends()
    except ConfigError:  # there is no checkpoint, or it cannot be used
        directory.clear()
    finally:
        claim.release()


def _signal(status: int) -> str | None:
    """Return the signal that ended a process, with its likely cause; ``None`` for other ends."""
    number = -status if status < 0 else status - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return None
    return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name


def _end(process: Process) -> None:
    if process.poll() is None:
        process.terminate()  # it writes a checkpoint before it ends
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
