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

from ..store.directory import RunDirectory
from ..store.files import write_atomic
from . import PARENT
from .grid import Job


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
    workers: int = 1,
    retry: bool = False,
    data_root: Path | None = None,
    words: Sequence[str] = (),
    show: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Run what is not finished yet, each run in a process of its own, ``workers`` at a time.

    A run that fails leaves ``error.txt`` and is not tried again unless ``retry``. On an interrupt
    the processes are stopped, and what was under way goes on from its checkpoint next time.
    ``words`` are flags for every ``fedbench run``.

    Returns:
        the final counts.
    """
    progress = Progress(len(jobs))
    more = [*words, *(["--data-root", str(data_root)] if data_root else [])]
    waiting = deque(jobs)
    lock = threading.Lock()
    stop = threading.Event()

    def update(**changes: int) -> None:
        with lock:
            for name, change in changes.items():
                setattr(progress, name, getattr(progress, name) + change)
            show(progress)

    def worker() -> None:
        while not stop.is_set():
            with lock:
                if not waiting:
                    return
                job = waiting.popleft()
            job.path.parent.mkdir(parents=True, exist_ok=True)
            claim = FileLock(job.path.parent / f".{job.path.name}.lock")
            try:
                with claim.acquire(timeout=0):
                    update(**_one(job, workers, retry, more, progress, lambda: update(), stop))
            except Timeout:  # another comparison is at it: look again later
                with lock:
                    waiting.append(job)
                stop.wait(1.0)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as threads:
        futures = [threads.submit(worker) for _ in range(max(1, workers))]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            raise
    return progress


def _one(
    job: Job,
    workers: int,
    retry: bool,
    words: Sequence[str],
    progress: Progress,
    tick: Callable[[], None],
    stop: threading.Event,
) -> dict[str, int]:
    directory = RunDirectory(job.path)
    if directory.finished:
        return {"done": 1, "reused": 1}
    if directory.failed and not retry:
        return {"done": 1, "failed": 1}
    if directory.failed:
        shutil.rmtree(job.path)
    file = job.path.parent / f".{job.path.name}.yaml"
    write_atomic(file, job.config.to_yaml().encode())
    command = [sys.executable, "-m", "fedbench", "run", str(file), "--out", str(job.path)]
    command += ["--quiet", *words]
    if workers > 1:  # the cores are taken by runs; results do not depend on the executor
        command += ["--executor", "inline"]
    log = job.path.parent / f".{job.path.name}.log"
    key = job.path.name
    with log.open("wb") as output:
        # In a group of its own, so that Ctrl-C on a terminal reaches it once, from us; and it ends
        # when this process does, whatever ends it.
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, PARENT: str(os.getpid())},
            process_group=0,
        )
        try:
            while process.poll() is None:
                progress.running[key] = (directory.count_rounds(), job.config.rounds)
                tick()
                if stop.wait(0.5):
                    break
        finally:
            progress.running.pop(key, None)
            _end(process)
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    log.unlink()
    file.unlink()
    if process.returncode == 0:
        return {"done": 1}
    if stop.is_set():
        return {}
    last = text.splitlines()[-1] if text else f"ended with status {process.returncode}"
    directory.fail(job.config, last.removeprefix("Error: "), text)
    return {"done": 1, "failed": 1}


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()  # it writes a checkpoint before it ends
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
