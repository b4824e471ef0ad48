"""Outlive a run that started Ray on this machine, and end whatever is left of that Ray.

Ray's own processes take a minute to notice that a run was killed. This process waits on a pipe that
closes when the run ends for whatever reason. It is run as a script and imports nothing from
fedbench.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path


def belongs(process: Path, folder: str) -> bool:
    """Return whether a process was started with ``folder`` or has a file in it open.

    Args:
        process: the process's folder in ``/proc``.
        folder: the path that names the cluster.
    """
    try:
        if folder.encode() in (process / "cmdline").read_bytes():
            return True
        return any(os.readlink(fd).startswith(f"{folder}/") for fd in (process / "fd").iterdir())
    except OSError:  # another user's process, or one that has just ended
        return False


def end(folder: str, spared: set[int]) -> None:
    """Kill processes that belong to ``folder`` until none is left, then remove it; 60 s at most.

    Args:
        folder: the path that names the cluster.
        spared: ids of processes not to kill.
    """
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
