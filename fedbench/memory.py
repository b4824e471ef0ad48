"""Keep freed memory for the next step instead of giving it back to the system.

Training frees and asks for the same large buffers at every step. glibc maps buffers above a
threshold anew each time, and the page faults cost about a fifth of a training step (2.24 s against
1.81 s for two ResNet-10 clients, one pass, 2 cores). Results do not change.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP = 1 << 30
"""Buffers below this many bytes are reused, and so much may stay unused at the top."""


def keep_freed_memory() -> bool:
    """Raise glibc's thresholds in this process; return whether that was possible (Linux, glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEEP)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP))
