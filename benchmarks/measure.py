"""Run a process and observe it from outside: when its rounds end, and how much memory it needs.

Memory is the proportional set size (PSS), summed over the process and all its descendants, so
pages that processes share count once. It is read from ``/proc`` on Linux; elsewhere it is ``None``.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import gpu_memory

ROUND = re.compile(r'\{"round": (\d+)|round (\d+)/')
"""The start of a line about a finished round: a driver's JSON, or fedbench's own progress."""

INTERVAL = 0.2
"""Seconds between two readings of the memory; more if a reading takes long (see `Sampler`)."""


class Failed(Exception):
    """A contestant that did not finish its rounds."""


@dataclass
class Measured:
    """One run of a contestant, seen from outside; times in seconds since the process started."""

    rounds: list[float] = field(default_factory=list)
    """When each round's line arrived."""
    end: float = 0.0
    pss_peak: int | None = None
    """Bytes."""
    pss: list[tuple[float, int]] = field(default_factory=list)
    """All readings of the memory: when, and bytes."""
    pss_samples: int = 0
    gpu_peak: int | None = None
    """Bytes by which the used memory of the GPU rose at most; `gpu_memory` says when ``None``."""
    load_before: float = 0.0
    """The machine's load average over the minute before the run."""

    @property
    def per_round(self) -> list[float]:
        """Seconds of each round after the first."""
        return [b - a for a, b in zip(self.rounds, self.rounds[1:], strict=False)]


def adopt_orphans() -> None:
    """Make this process the parent of orphaned descendants, so that all of them are counted."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def descendants() -> list[int]:
    """Return the ids of all processes that this one started, directly or indirectly."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir() if sys.platform.startswith("linux") else ():
        if entry.name.isdigit():
            with suppress(OSError):
                # pid (name) state parent ...; the name may hold anything
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def pss(processes: Sequence[int]) -> int:
    """Return the total proportional set size of some processes, in bytes."""
    total = 0
    for process in processes:
        with suppress(OSError):  # it may have ended
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            if found := re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE):
                total += 1024 * int(found[1])
    return total


class Sampler(threading.Thread):
    """Reads the memory of all descendants from time to time, and keeps the highest sum.

    The kernel counts pages for each reading. To cost at most a fiftieth of one core, the pause is
    at least 50 times as long as the reading took.
    """

    def __init__(self, gpu: str | None = None) -> None:
        super().__init__(daemon=True)
        self.readings: list[tuple[float, int]] = []
        """Each reading: `time.monotonic`, bytes."""
        self._gpu, self._before = gpu, gpu_memory.used(gpu)
        self._risen: list[int] = []
        self._done = threading.Event()

    def run(self) -> None:
        pause = 0.0
        while not self._done.wait(pause):
            started = time.thread_time()
            found = pss(descendants())
            self.readings.append((time.monotonic(), found))
            now = gpu_memory.used(self._gpu)
            if now is not None and self._before is not None:
                self._risen.append(now - self._before)
            pause = max(INTERVAL, 50 * (time.thread_time() - started))

    @property
    def peak(self) -> int:
        """The most bytes so far."""
        return max((size for _, size in self.readings), default=0)

    @property
    def gpu_peak(self) -> int | None:
        """The most bytes by which the used memory of the GPU has risen."""
        return max(self._risen, default=None)

    def stop(self) -> None:
        self._done.set()
        self.join()


def run(
    command: Sequence[str],
    rounds: int,
    *,
    env: Mapping[str, str] | None = None,
    limit: float = 1800.0,
    gpu: str | None = None,
) -> Measured:
    """Run ``command``, which prints one line per finished round.

    Args:
        command: program and arguments.
        rounds: how many rounds it must report.
        env: its environment.
        limit: seconds after which it is killed.
        gpu: the UUID of the GPU whose memory is read, too.

    Raises:
        Failed: when it ends with an error or reports fewer rounds, with the end of its output.
    """
    measured = Measured(load_before=os.getloadavg()[0])
    lines: list[str] = []
    sampler = Sampler(gpu) if Path("/proc/self/smaps_rollup").exists() else None
    with tempfile.TemporaryFile("w+") as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=errors, env=env, text=True
        )
        watchdog = threading.Timer(limit, process.kill)
        reader = threading.Thread(target=read, args=(process, started, measured, lines))
        helpers = [watchdog, reader, *([sampler] if sampler else [])]
        for helper in helpers:
            helper.start()
        try:
            process.wait()
            measured.end = time.monotonic() - started
        finally:
            watchdog.cancel()
            if sampler:
                sampler.stop()
                measured.pss_peak, measured.pss_samples = sampler.peak, len(sampler.readings)
                measured.gpu_peak = sampler.gpu_peak
                measured.pss = [
                    (round(moment - started, 2), size) for moment, size in sampler.readings
                ]
            process.kill()
            process.wait()
            end_all()  # processes that are left keep the pipe open, and the reader would wait
            reader.join()
            if process.stdout:
                process.stdout.close()
        if process.returncode or len(measured.rounds) != rounds:
            errors.seek(0)
            tail = "".join([*lines, *errors])[-3000:]
            raise Failed(
                f"exit status {process.returncode}, {len(measured.rounds)} of {rounds} rounds "
                f"in {measured.end:.0f} s:\n{tail}"
            )
    return measured


def read(
    process: subprocess.Popen[str], started: float, measured: Measured, lines: list[str]
) -> None:
    """Keep the lines that a process prints, and the times of those about a finished round."""
    assert process.stdout is not None
    for line in process.stdout:
        if ROUND.match(line):
            measured.rounds.append(time.monotonic() - started)
        lines.append(line)


def end_all() -> None:
    """End the processes that a contestant left running, and wait until they are gone."""
    for _ in range(50):
        left = descendants()
        if not left:
            return
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.1)
    raise RuntimeError(f"processes {descendants()} could not be ended")
