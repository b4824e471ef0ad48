"""`fedbench data fetch`: let a data set fetch its files, and show the progress.

A data set's class may offer ``fetch(root, report)``, which calls ``report(what, done, total)``:
``what`` names the current step, ``done`` says how much of it is done, and ``total`` is its size, or
``None`` while that is not known. The unit may be bytes or files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config.construct import build
from ..console import Console
from ..contracts import FetchedSource, FetchReport
from ..errors import ConfigError
from ..plugins.facts import DatasetFacts, facts
from ..plugins.registry import Registry
from ..text import echo


def fetch(registry: Registry, name: str, root: Path) -> str:
    """Fetch the data set ``name`` into ``root``; return a line that says where it is.

    Raises:
        ConfigError: when there is no such data set, or its files cannot be fetched.
    """
    found = facts(DatasetFacts, registry.get("dataset", name).value)
    if found.embedded:
        return f"{name} is inside the package; there is nothing to fetch"
    source = build(registry, "dataset", {"name": name})
    if not isinstance(source, FetchedSource):
        raise ConfigError(
            f"{name} has nothing to fetch: it reads {found.source}; "
            f"`fedbench plugins show {name}` says where it looks"
        )
    with progress() as report:
        source.fetch(root, report)
    licence = found.licence if found.licence != "-" else "not given"
    return f"{name} is in {root / name} (licence: {licence})"


@contextmanager
def progress() -> Iterator[FetchReport]:
    """Yield a function that shows progress: bars on a terminal, or else one line per step."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        *(BarColumn(), DownloadColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(stderr=True, markup=False, emoji=False)) as bars:
        tasks = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _lines() -> FetchReport:
    said: set[str] = set()

    def report(what: str, done: int, total: int | None) -> None:
        if done == total and what not in said:
            said.add(what)
            echo(f"{what}: {done}", err=True)

    return report
