"""Begin a run in its directory, or resume it there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..config.model import RunConfig
from ..plugins.memory import sources
from ..plugins.registry import Registry
from ..store.claim import Busy
from ..store.directory import RunDirectory, Taken, free_name, unfinished
from .run import Run


def start(registry: Registry, config: RunConfig, out: Path | None, **more: Any) -> tuple[Run, bool]:
    """Resume the run of ``config`` in ``out``, or else start it there.

    Without ``out``, the first free name in ``runs/`` is used, even if another process takes one in
    the meantime. A run with plugins that are defined in memory is resumed only where ``out`` says
    so, because they may have changed.

    Args:
        registry: what is installed.
        config: the run's config.
        out: the run directory.
        more: see `Run`.

    Returns:
        the run, and whether it was resumed.
    """
    name = f"{config.method}-{config.data_name}-s{config.seed}"
    name = re.sub(r"[^\w.=+-]+|^[.]", "-", name)[-100:]
    usable = "" if config.in_memory else config.hash
    while True:
        path = out or free_name(Path("runs"), name, usable)
        if unfinished(path, config.hash if out else usable):
            return Run.resume(path, config, registry=registry, **more), True
        try:
            run = Run(config, path, registry=registry, **more)
        except (Taken, Busy):
            if out:
                raise
        else:
            RunDirectory(path).write_sources(sources(registry, config.in_memory))
            return run, False
