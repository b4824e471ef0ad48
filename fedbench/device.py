"""Where a run computes: its device and cores, and freed memory that is kept for reuse.

Training frees and allocates the same large buffers at every step. By default, glibc maps buffers
above a threshold anew each time, and the page faults cost about a fifth of a training step (2.24 s
instead of 1.81 s for two ResNet-10 clients, one epoch, 2 cores). Keeping the memory changes no
result.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from .errors import ConfigError
from .text import summary

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
        raise ConfigError(f"device {name!r} cannot be used here: {summary(error)}") from error
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


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, at least 1.

    That is the smallest of its CPU affinity (``taskset``, cpusets), the CPU quotas of its control
    groups (containers), rounded up, and what Slurm allocated to it. Without any of them it is the
    number of cores of the machine.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    limits = [len(affinity(0)) if affinity else os.cpu_count() or 1, *_quotas(root)]
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        text = os.environ.get(name, "")
        limits += [int(text)] if text.isdecimal() else []
    return max(1, min(limits))


def _quotas(root: Path) -> Iterator[int]:
    """Yield the CPU quotas of this process's control groups and their ancestors, in cores."""
    for line in _words(root / "proc/self/cgroup", "\n"):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        folder = root / "sys/fs/cgroup" / controllers
        for group in (folder.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)):
            both = [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
            quota, period = [*(both if controllers else _words(group / "cpu.max")), "", ""][:2]
            if quota.isdecimal() and period.isdecimal() and int(period):  # not "max", not -1
                yield math.ceil(int(quota) / int(period))


def _words(file: Path, separator: str | None = None) -> list[str]:
    """Return the words of a small file, none if it cannot be read."""
    try:
        return [word for word in file.read_text().split(separator) if word]
    except (OSError, ValueError):
        return []
