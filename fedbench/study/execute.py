"""Run a plan: each run in a process of its own, several at a time, finished ones reused.

Every run has a lock file: two comparisons in one folder wait for each other's runs instead of
repeating or corrupting them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..device import cores
from ..store.directory import RunDirectory
from ..store.files import write_atomic
from ..text import last_words
from . import PARENT
from .grid import Job
from .reuse import set_aside


@dataclass
class Progress:
    """What a comparison is doing, for whoever shows it."""

    total: int
    done: int = 0
    reused: int = 0
    failed: int = 0
    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Run -> (rounds done, rounds in all)."""


def execute(
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    retry: bool = False,
    data_root: Path | None = None,
    words: Sequence[str] = (),
    show: Callable[[Progress], None] = lambda _: None,
    changes: Callable[[Job], Sequence[str]] = lambda _: (),
) -> Progress:
    """Run what is not finished yet, each run in a process of its own, ``workers`` at a time.

    By default there are as many at a time as this process may use cores, but one on each GPU.
    A run that fails leaves ``error.txt`` and is not tried again unless ``retry``. On an interrupt
    the processes are stopped; unfinished runs continue from their checkpoints next time.
    ``words`` are flags for every ``fedbench run``. A kept run of which ``changes`` names something
    is set aside and made anew, see `fedbench.study.reuse`.

    Returns:
        the final counts.
    """
    more = [*words, *(["--data-root", str(data_root)] if data_root else [])]
    queues = _queues(jobs, workers)
    if sum(number for _, number in queues) > 1:  # runs take the cores; the bits are the same
        more += ["--executor", "inline"]
    execution = _Execution(len(jobs), retry, more, show, changes)
    with ThreadPoolExecutor(max_workers=sum(number for _, number in queues) or 1) as threads:
        futures = [threads.submit(execution.work, q) for q, number in queues for _ in range(number)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            execution.stop.set()
            raise
    return execution.progress


def _queues(jobs: Sequence[Job], workers: int | None) -> list[tuple[deque[Job], int]]:
    """Return queues of jobs, each with how many of its jobs run at a time.

    Jobs on different devices do not wait for each other, unless ``workers`` says how many run.
    """
    devices: dict[str, deque[Job]] = {}
    for job in jobs:
        name = job.config.device
        device = "" if workers else name if ":" in name else f"{name}:0"
        devices.setdefault(device, deque()).append(job)
    numbers = (workers or (cores() if device == "cpu:0" else 1) for device in devices)
    return [(q, min(n, len(q))) for q, n in zip(devices.values(), numbers, strict=True)]


class _Execution:
    """What becomes of the runs; shared by the threads that carry them out."""

    def __init__(
        self,
        total: int,
        retry: bool,
        words: Sequence[str],
        show: Callable[[Progress], None],
        changes: Callable[[Job], Sequence[str]],
    ) -> None:
        self.progress, self.stop = Progress(total), threading.Event()
        self._lock = threading.Lock()
        self._retry, self._words, self._show, self._changes = retry, words, show, changes

    def work(self, waiting: deque[Job]) -> None:
        """Take one of the ``waiting`` jobs after the other until there is none."""
        while not self.stop.is_set():
            try:
                job = waiting.popleft()
            except IndexError:
                return
            job.path.parent.mkdir(parents=True, exist_ok=True)
            claim = FileLock(job.path.parent / f".{job.path.name}.lock")
            try:
                with claim.acquire(timeout=0):
                    self._update(**self._one(job))
            except Timeout:  # another comparison runs it: look again later
                waiting.append(job)
                self.stop.wait(1.0)

    def _update(self, **changes: int) -> None:
        with self._lock:
            for name, change in changes.items():
                setattr(self.progress, name, getattr(self.progress, name) + change)
            self._show(self.progress)

    def _one(self, job: Job) -> dict[str, int]:
        """Bring one run to its end; return what it adds to the counts."""
        directory = RunDirectory(job.path)
        if self._changes(job):
            set_aside(job.path)
        if directory.finished:
            return {"done": 1, "reused": 1}
        if directory.failed and not self._retry:
            return {"done": 1, "failed": 1}
        if directory.failed:
            shutil.rmtree(job.path)
        status, text = self._run(job, directory)
        if status == 0:
            return {"done": 1}
        if self.stop.is_set():
            return {}
        directory.fail(job.config, last_words(text) or f"ended with status {status}", text)
        return {"done": 1, "failed": 1}

    def _run(self, job: Job, directory: RunDirectory) -> tuple[int, str]:
        """Run the job in a process; return its exit status and what it printed."""
        file = job.path.parent / f".{job.path.name}.yaml"
        log = job.path.parent / f".{job.path.name}.log"
        write_atomic(file, job.config.to_yaml().encode())
        command = [sys.executable, "-m", "fedbench", "run", str(file), "--out", str(job.path)]
        with log.open("wb") as output:
            # In a group of its own, so that Ctrl-C on a terminal reaches it once, from us; and it
            # ends when this process does, whatever ends it.
            process = subprocess.Popen(
                [*command, "--quiet", *self._words],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, PARENT: str(os.getpid())},
                process_group=0,
            )
            self._follow(process, job, directory)
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        log.unlink()
        file.unlink()
        return process.returncode, text

    def _follow(self, process: subprocess.Popen[bytes], job: Job, directory: RunDirectory) -> None:
        """Show the rounds of a process until it ends, or end it when all shall stop."""
        running = self.progress.running
        try:
            while process.poll() is None:
                running[job.path.name] = (directory.count_rounds(), job.config.rounds)
                self._update()
                if self.stop.wait(0.5):
                    break
        finally:
            running.pop(job.path.name, None)
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()  # it writes a checkpoint before it ends
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
