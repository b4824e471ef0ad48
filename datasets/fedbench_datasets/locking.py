"""Locks on files that say who holds them.

Next to a lock file that is held is ``NAME.holder``, which records the process, its machine and
since when. It is for people: only the lock itself decides who may work.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from fedbench.store.files import write_atomic

from .notices import say

PATIENCE = 3.0
"""Seconds to wait for a lock before saying who holds it."""


@contextmanager
def held(lock_file: Path, name: str, wait: bool = True) -> Iterator[None]:
    """Hold a lock; after a few seconds of waiting, say once on stderr who has it.

    Args:
        lock_file: the file to lock; its folder exists.
        name: what the line begins with, such as the data set's name.
        wait: if not, a lock that another process holds is an error at once.

    Raises:
        Timeout: when it is held and ``wait`` is false.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=PATIENCE if wait else 0)
    except Timeout:
        if not wait:
            raise
        say(name, f"waiting for {holder(lock_file)}, which holds {lock_file}")
        lock.acquire()
    note = _note(lock_file)
    about = {
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    try:
        with suppress(OSError):  # the work matters more than the note
            write_atomic(note, json.dumps(about).encode(), durable=False)
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        lock.release()


def holder(lock_file: Path) -> str:
    """Return who holds a lock that is taken, as far as its note says."""
    try:
        about = json.loads(_note(lock_file).read_text(encoding="utf-8"))
        since = datetime.fromisoformat(about["since"]).astimezone()
        return f"process {int(about['process'])} on {about['host']} (since {since:%Y-%m-%d %H:%M})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _note(lock_file: Path) -> Path:
    return lock_file.with_name(lock_file.name + ".holder")
