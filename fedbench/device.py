"""Where a run computes: its device and cores, and freed memory that is kept for reuse.

Training frees and allocates the same large buffers at every step. By default, glibc maps buffers
above a threshold anew each time, and the page faults cost about a fifth of a training step (2.24 s
instead of 1.81 s for two ResNet-10 clients, one epoch, 2 cores). Keeping the memory changes no
result.
"""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from .errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP = 1 << 30
"""Bytes: smaller buffers are reused, and up to this much may stay unused at the top of the heap."""


def keep_freed_memory() -> bool:
    """Raise glibc's thresholds in this process; return whether that was possible (Linux only)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEEP)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP))


def open_device(name: str, precision: str = "fp32") -> torch.device:
    """Return the device called ``name``.

    Raises:
        ConfigError: when it cannot be used here, or not with that precision.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here: {why}") from error
    if precision == "bf16" and not _has_bf16(device):
        raise ConfigError(
            f"precision 'bf16' cannot be used on device {name!r} of this machine, which has no "
            "bfloat16 arithmetic; use 'fp32'"
        )
    return device


def _has_bf16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 arithmetic; a CPU without it would be far slower."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        with torch.autocast(device.type, torch.bfloat16):
            one = torch.ones(1, 1, device=device)
            return (one @ one).dtype == torch.bfloat16
    except RuntimeError:
        return False


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
