"""Earlier runs in a comparison's folder: those that belong in its tables, and the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import ConfigError
from ..plugins.registry import Registry
from ..store.directory import RunDirectory
from .grid import Job
from .records import Record, contradiction, read

Changes = Callable[[Job], Sequence[str]]
"""What has changed since a run was made, see `fedbench.study.reuse.Reuse.changes`."""

OTHER = "of other settings"


def earlier(
    registry: Registry, planned: Sequence[Job], found: Sequence[Record], changes: Changes
) -> tuple[list[Record], str]:
    """Return the earlier runs that belong in a comparison's tables, and one line on all of them.

    Every finished run in the folder that shares a setting with a planned run belongs, unless it
    repeats one of them or would have another result today. The line is empty if there is none.

    Args:
        registry: what is installed.
        planned: the runs of the comparison, in one folder.
        found: the records of the planned runs.
        changes: returns why a run would have another result today.
    """
    folder, places = planned[0].path.parent, {job.path for job in planned}
    settings, taken = {r.setting_key for r in found}, set(map(_repeated, found))
    added: list[Record] = []
    left_out: Counter[str] = Counter()
    for path in sorted(folder.iterdir()):
        if path in places or not RunDirectory(path).exists:
            continue
        record = _readable(registry, path)
        if record is None:
            left_out["that cannot be read"] += 1
        elif record.setting_key not in settings:
            left_out[OTHER] += 1
        elif record.status != "finished":
            left_out["not finished"] += 1
        elif _repeated(record) in taken:
            left_out["with the method and seed of another run"] += 1
        elif changes(Job(record.config, record.variant, path)):
            left_out["from before a change of code or data or versions (see --trust-old)"] += 1
        else:
            added.append(record)
            taken.add(_repeated(record))
    return added, _line(folder, len(added), left_out)


def _readable(registry: Registry, path: Path) -> Record | None:
    try:
        record = read(registry, path)
    except ConfigError:
        return None
    return None if contradiction(registry, record) else record


def _repeated(record: Record) -> tuple[str, str, int]:
    """Return a key that two runs share if a table can show only one of them."""
    return record.setting_key, record.variant, record.seed


def _line(folder: Path, added: int, left_out: Counter[str]) -> str:
    parts = [f"{_runs(added)} in the tables too, of the same setting"] if added else []
    if left_out:
        why = ", ".join(f"{number} {what}" for what, number in left_out.items())
        parts.append(f"{_runs(left_out.total())} left out: {why}")
    more = f" (`fedbench report {folder}` shows all)" if OTHER in left_out else ""
    return f"{folder}: {'; '.join(parts)}{more}" if parts else ""


def _runs(number: int) -> str:
    return "1 earlier run is" if number == 1 else f"{number} earlier runs are"
