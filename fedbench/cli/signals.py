"""Signals: the first Ctrl-C or SIGTERM ends a command in good order, the second at once."""

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
"""Environment variable of `fedbench.study` with the process that this one must not outlive."""


_working = False
"""Whether the command has begun its work, which it then ends by itself."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run as Ctrl-C does, with an exit status of its own."""


def status(error: KeyboardInterrupt) -> int:
    """Return the exit status that shells expect: 128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def begin() -> None:
    """Say that all is imported: from now on the command itself ends what it does on a signal."""
    global _working
    _working = True


@contextmanager
def orderly() -> Iterator[list[int]]:
    """Raise `KeyboardInterrupt` at the first SIGINT, `Terminated` at the first SIGTERM.

    Before `begin`, and at a second signal of either kind, the process ends on the spot: workers end
    with their parent, and files are whole at every moment. A signal that is ignored (``nohup``,
    ``&``) stays so. A process that follows a parent takes no second SIGTERM: Linux sends one for
    each thread of a parent that is killed, and the first checkpoint may be under way.

    Yields:
        the signals that have come.
    """
    global _working
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    owner, follows = os.getpid(), PARENT in os.environ
    _working = False

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker that has just been forked
            os._exit(128 + number)
        if caught and follows and number == signal.SIGTERM:
            return
        if caught:
            write("Stopped at once; the last checkpoint is kept.")
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
    """Ask Linux for a SIGTERM when the process named in `PARENT` ends.

    Raises:
        Terminated: when it has ended already.
    """
    parent = os.environ.pop(PARENT, None)
    if parent and sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if str(os.getppid()) != parent:
            raise Terminated
