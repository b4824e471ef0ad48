"""Ctrl-C while commands are being imported; this module is imported before all others."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

program = False
"""Whether this process is the program ``fedbench``, and not one that has called a command."""


def guard() -> None:
    """From now on, let Ctrl-C end this process with one line instead of a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def leave(number: int, frame: FrameType | None) -> None:
    """End this process immediately, as a signal handler.

    It is for the first seconds, while modules are imported. An exception raised there could surface
    anywhere: as an `ImportError`, for example, or not at all.
    """
    write("Interrupted")
    os._exit(128 + number)


def write(line: str) -> None:
    """Write a line to standard error, if possible, and show the cursor again."""
    try:
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""
        os.write(2, f"{show_cursor}\n{line}\n".encode())
    except OSError:
        pass
