"""Runs that a warm parent forks: `fedbench.cli.warm`, which has imported everything and has data.

A run of its own has to import torch and to decode its data first, which takes longer than many a
short run. Only Linux has it: elsewhere, libraries do not survive a fork.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

PATIENCE = 2
"""After how many parents in a row that fork no run it is left to processes of their own."""

SUPPORTED = sys.platform.startswith("linux")


def python() -> list[str]:
    """Return the command that starts this Python with the same search path for modules.

    Only the current folder is omitted, because a file there may have the name of any module.
    """
    flags = ["-E"] if sys.flags.ignore_environment else []
    flags += ["-s"] if sys.flags.no_user_site else []
    return [sys.executable, "-P", *flags]


class Forked:
    """A run that a warm parent has forked; a part of the interface of `subprocess.Popen`.

    Args:
        pid: its process id.
        answer: where the parent reports its end.
    """

    def __init__(self, pid: int, answer: Connection) -> None:
        self.pid, self._answer = pid, answer
        self.returncode: int | None = None
        """As of `subprocess.Popen`. If the parent ended first, its runs got a SIGTERM."""

    def poll(self) -> int | None:
        """Return the exit status, ``None`` while the run is running."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status.

        Raises:
            subprocess.TimeoutExpired: when the run is still running after ``timeout`` seconds.
        """
        if self.returncode is None:
            if not self._answer.poll(timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            try:
                self.returncode = self._answer.recv()
            except EOFError:  # the run had the other end too, so it has ended as well
                self.returncode = -signal.SIGTERM
            self._answer.close()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Send the run a SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send the run a SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Warm:
    """Has runs forked by a warm parent, by default one that starts with the first of them.

    A parent that ends, or that refuses a run because code has changed, is replaced.

    Args:
        stop: while it is not set, `fork` waits for a parent.
        root: where data sets look for files; ``None`` for the default.
        parent: the first parent, which whoever started it ends.
    """

    def __init__(
        self, stop: threading.Event, root: Path | None, parent: Parent | None = None
    ) -> None:
        self.stop, self._lock = stop, threading.Lock()
        self._root = root and str(root)
        self._parents = [parent] if parent else []
        self._given = parent
        self._failures = 0

    def __enter__(self) -> Warm:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the parents that were started here, and with them the runs that are left."""
        for parent in self._parents:
            if parent is not self._given:
                parent.end()

    def fork(self, words: Sequence[str], data: Mapping[str, Any], log: IO[bytes]) -> Forked | None:
        """Start a run.

        Args:
            words: the command, without the program's name.
            data: the data set of the run, as in its config.
            log: where the run prints to.

        Returns:
            the run; ``None`` when it needs a process of its own, or everything has to stop.
        """
        message = json.dumps({"words": words, "data": data, "root": self._root})
        while not self.stop.is_set():
            with self._lock:
                if self._failures == PATIENCE:
                    return None
                if not self._parents or self._parents[-1].left:
                    self._parents.append(_started())
                parent = self._parents[-1]
            answer = parent.send(message.encode(), log)
            while not answer.poll(0.2):
                if self.stop.is_set():
                    return None
            try:
                run = Forked(answer.recv(), answer)
            except EOFError:
                with self._lock:
                    self._failures += not parent.left
                    parent.left = True
                continue
            self._failures = 0
            return run
        return None


class Parent:
    """The process of a warm parent, and the socket that leads to it.

    Args:
        control: this end of the socket.
        kill: ends the process, and waits until it has ended.
    """

    def __init__(self, control: socket.socket, kill: Callable[[], object]) -> None:
        self.left = False
        """Whether it gets no more requests."""
        self._control, self._kill = control, kill

    def send(self, message: bytes, log: IO[bytes]) -> Connection:
        """Send a request; return where its answer will be, which is at its end if there is none."""
        answer, theirs = multiprocessing.Pipe(duplex=False)
        with theirs, suppress(OSError):  # it has ended
            socket.send_fds(self._control, [message], [log.fileno(), theirs.fileno()])
        return answer

    def end(self) -> None:
        """End the process."""
        self._control.close()
        self._kill()


def ends() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new socket for a `Parent`: this process's, and the parent's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _started() -> Parent:
    """Start a warm parent as a program."""
    control, theirs = ends()
    with theirs:
        # As for a run: Ctrl-C reaches only this process. The parent ends when this one does, which
        # closes the socket.
        process = subprocess.Popen(
            [*python(), "-m", "fedbench.cli.warm_program", str(theirs.fileno())],
            stdout=subprocess.DEVNULL,
            env={**os.environ},  # as for a run; by default it has what libraries set in C too
            pass_fds=[theirs.fileno()],
            process_group=0,
        )

    def kill() -> None:
        process.kill()
        process.wait()

    return Parent(control, kill)
