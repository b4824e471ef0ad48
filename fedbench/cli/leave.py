"""Ctrl-C while a command is being imported; this module itself is imported before all others."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def guard() -> None:
    """Let Ctrl-C end this process with one line, without a traceback, from now on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def leave(number: int, frame: FrameType | None) -> None:
    """End this process on the spot, as a handler of signals.

    For the seconds of imports at the start. An exception there would come out of anywhere: as an
    `ImportError`, or not at all.
    """
    write("Interrupted")
    os._exit(128 + number)


def write(line: str) -> None:
    """Write a line to standard error, as far as that is possible, and show the cursor again."""
    try:
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""
        os.write(2, f"{show_cursor}\n{line}\n".encode())
    except OSError:
        pass
