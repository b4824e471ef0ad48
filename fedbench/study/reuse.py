"""Decide which kept runs of a plan may be reused: those whose result would be the same today."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .. import loading
from ..ambient import settled
from ..config.model import RunConfig
from ..errors import ConfigError
from ..plugins.registry import Registry
from ..store import checkpoint, fingerprint
from ..store.directory import REPLACED, RunDirectory
from .grid import Job

UNKNOWN = "no record of what the result depends on"
SHOWN = 4
"""How many changes the summary names."""


class Reuse:
    """Compares what the results of kept runs depended on with what is installed today.

    Args:
        registry: what is installed.
        data_root: where data sets look for their files.
        trust_old: whether finished runs are reused whatever has changed. One that is not finished
            cannot be: its later rounds would not fit its earlier ones.
    """

    def __init__(self, registry: Registry, data_root: Path, trust_old: bool = False) -> None:
        self._registry, self._root, self._trust_old = registry, data_root, trust_old
        self._data: dict[str, str] = {}

    def changes(self, job: Job) -> list[str]:
        """Return what has changed since a job was run; empty when its run may be reused.

        The code that a class in memory uses may be in any cell of a notebook, so a run with such a
        plugin is not reused.

        Raises:
            ConfigError: when the data can no longer be read.
        """
        directory = RunDirectory(job.path)
        if not directory.exists:
            return []
        if self._trust_old and (directory.finished or not checkpoint.exists(job.path)):
            return []
        then = fingerprint.kept(directory.read_environment())
        if self._trust_old:
            return fingerprint.changes(then, fingerprint.of_run(self._registry, job.config))
        if fingerprint.CORE not in then:
            return [] if directory.failed else [UNKNOWN]
        if names := job.config.in_memory:
            return [f"{', '.join(names)}: in memory, so that a change of it may not be seen"]
        now = fingerprint.of_run(self._registry, job.config)
        if fingerprint.DATA in then:
            now[fingerprint.DATA] = self._content(job.config)
        return fingerprint.changes(then, now)

    def _content(self, config: RunConfig) -> str:
        key = json.dumps(config.data, sort_keys=True)
        if key not in self._data:
            try:
                with settled():
                    loaded = loading.load(self._registry, config.data, self._root)
            except ConfigError as error:
                error.add_note("(--trust-old reuses finished runs without reading their data)")
                raise
            self._data[key] = loaded.digest
        return self._data[key]

    def summary(self, jobs: Sequence[Job]) -> str | None:
        """Return one line on the kept runs that will be repeated; ``None`` when there are none."""
        found = [changes for job in jobs if (changes := self.changes(job))]
        if not found:
            return None
        what = list(dict.fromkeys(change for changes in found for change in changes))
        more = f" and {len(what) - SHOWN} more" if len(what) > SHOWN else ""
        runs = "1 run is" if len(found) == 1 else f"{len(found)} runs are"
        hint = "" if self._trust_old else " (--trust-old reuses finished runs)"
        return (
            f"{runs} repeated because of a change since then: {'; '.join(what[:SHOWN])}{more}{hint}"
        )


def set_aside(path: Path) -> None:
    """Move a run that will be repeated out of the way, into ``replaced/`` next to ``runs/``."""
    folder = path.parent.parent / REPLACED
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := folder / f"{path.name}-{number}").exists():
        number += 1
    path.rename(target)
