"""Signals: the first Ctrl-C or SIGTERM ends a command cleanly, the second immediately."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .leave import leave, write

PARENT = "FEDBENCH_PARENT"
"""Environment variable, set by `fedbench.study`: the process that this one must not outlive."""


follows = False
"""Whether this process belongs to a comparison, which notes how it ends."""

_working = False
"""Whether the command has begun its work; from then on it ends its work itself."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run like Ctrl-C, but with its own exit status."""


def status(error: KeyboardInterrupt) -> int:
    """Return the exit status that shells expect: 128 plus the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def begin() -> None:
    """Record that all imports are done: on a signal, the command now ends its work itself."""
    global _working
    _working = True


@contextmanager
def orderly() -> Iterator[list[int]]:
    """Raise `KeyboardInterrupt` at the first SIGINT, `Terminated` at the first SIGTERM.

    Before `begin`, and at a second signal of either kind, the process ends immediately: workers end
    with their parent, and files are complete at every moment. A signal that is ignored (``nohup``,
    ``&``) stays ignored. A process that follows a parent ignores a second SIGTERM, because Linux
    sends one for each thread of a parent that is killed, and the first may still be writing a
    checkpoint.

    Yields:
        the signals received so far.
    """
    global _working
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    owner, following = os.getpid(), PARENT in os.environ
    _working = False

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker that has just been forked
            os._exit(128 + number)
        if caught and following and number == signal.SIGTERM:
            return
        if caught:
            write("Stopped immediately; the last checkpoint is kept.")
            os._exit(128 + number)
        if not _working:
            leave(number, frame)
        caught.append(number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield caught
    finally:
        for number, old in before.items():
            if old is not None:
                signal.signal(number, old)


def follow_parent() -> None:
    """Let Linux send a SIGTERM to this process when the process named in `PARENT` ends.

    Raises:
        Terminated: when that process has already ended.
    """
    global follows
    parent = os.environ.pop(PARENT, None)
    follows = parent is not None
    if parent and sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if str(os.getppid()) != parent:
            raise Terminated
