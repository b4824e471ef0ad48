"""How much memory of a GPU is in use, as its driver says through NVML.

That is the memory of all processes together, their CUDA contexts included. The driver can list
processes, too, but not from within most containers.
"""

from __future__ import annotations

try:
    import pynvml
except ImportError:
    pynvml = None


def used(uuid: str | None) -> int | None:
    """Return the bytes in use; ``None`` without a GPU, a driver that says it, or nvidia-ml-py."""
    if uuid is None or pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid)).used)
    except pynvml.NVMLError:
        return None
