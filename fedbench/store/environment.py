"""The versions and the machine that a result depends on, for ``environment.json``."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

from .contents import Environment, Git
from .git import commit


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    names = ("fedbench-toolkit", "torch", "torchvision", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


@cache
def version(distribution: str) -> str:
    """Return the version of an installed distribution, or ``not installed``.

    It is read once per process, like the code itself.
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def environment(device: str) -> Environment:
    """Describe the machine and the working directory's commit, for ``environment.json``."""
    import torch

    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return Environment(
        versions=versions(),
        platform=platform.platform(),
        processor=_processor(),
        cores=os.cpu_count(),
        device=device,
        device_name=accelerator,
        threads_per_client=1,
        git=_git(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git() -> Git | None:
    try:
        found = commit(Path.cwd())
    except OSError:  # the working directory was removed
        return None
    return Git(found) if found else None
