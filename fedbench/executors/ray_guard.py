"""Outlives a run that started Ray here, and ends all that is left of that Ray.

Ray's own processes notice only after a minute that the run was killed. This one waits at a pipe
that breaks with the run, whatever ends it. It is run as a script and imports nothing of fedbench.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path


def belongs(process: Path, folder: str) -> bool:
    """Whether a process, a folder of ``/proc``, was started for, or has a file in, ``folder``."""
    try:
        if folder.encode() in (process / "cmdline").read_bytes():
            return True
        return any(os.readlink(fd).startswith(f"{folder}/") for fd in (process / "fd").iterdir())
    except OSError:  # another user's, or just ended
        return False


def end(folder: str, spared: set[int]) -> None:
    """Kill the processes that belong to ``folder`` until there are none, then remove it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [p for p in Path("/proc").glob("[0-9]*") if int(p.name) not in spared]
        found = [p for p in found if belongs(p, folder)]
        if not found:
            break
        for process in found:
            try:
                os.kill(int(process.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end(sys.argv[1], {os.getpid(), int(sys.argv[2])})
