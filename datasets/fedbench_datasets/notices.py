"""Lines for the user on stderr: what was left out, what is waited for, how far a decoding is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from fedbench.text import printable


def say(name: str, text: str) -> None:
    """Print ``name: text`` as one line on stderr; do nothing if the process has no stderr."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # closed
            print(printable(f"{name}: {text}"), file=sys.stderr, flush=True)


def some(items: Sequence[str], most: int = 3) -> str:
    """Return the first ``most`` items and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
