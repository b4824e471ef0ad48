"""The commit of a git repository, read from its files without running git.

git runs programs that a repository's own configuration names, such as ``core.fsmonitor`` and
filters, and rewrites the repository's index. Reading the few files that name the commit does
neither. Whether files differ from the commit cannot be told this way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

LONGEST = 4096
"""Bytes of a line to read; every line of interest is shorter."""
LARGEST = 64 << 20
"""Bytes; a larger file is not read."""


def commit(folder: Path) -> str | None:
    """Return the commit that is checked out around ``folder``; ``None`` if there is none.

    As with git itself, a repository that belongs to another user is not read.
    """
    try:
        for place in (folder, *folder.parents):
            entry = place / ".git"
            if os.path.lexists(entry):
                git = _git_folder(entry)
                return _commit(git) if all(map(_ours, (place, entry, git))) else None
    except OSError:
        pass
    return None


def _git_folder(entry: Path) -> Path:
    """Return the folder of a repository; that of a worktree or submodule is named in a file."""
    if entry.is_dir():
        return entry
    return entry.parent / next(_lines(entry), "").removeprefix("gitdir: ")


def _ours(path: Path) -> bool:
    return not hasattr(os, "geteuid") or path.stat().st_uid == os.geteuid()


def _commit(git: Path) -> str | None:
    """Follow ``HEAD`` to a commit; a branch may be in a file of its own or packed with others."""
    common = git / next(_lines(git / "commondir"), "")
    found: str | None = next(_lines(git / "HEAD"), None)
    for _ in range(5):  # symbolic refs may name each other, but not endlessly
        if found is None or re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", found):
            return found
        ref = found.removeprefix("ref: ")
        if not ref.startswith("refs/") or ".." in ref:
            return None
        files = (git / ref, common / ref)
        found = next((line for file in files for line in _lines(file)), None) or _packed(
            common, ref
        )
    return None


def _packed(common: Path, ref: str) -> str | None:
    lines = (line.split(" ", 1) for line in _lines(common / "packed-refs"))
    return next((parts[0] for parts in lines if parts[1:] == [ref]), None)


def _lines(file: Path) -> Iterator[str]:
    """Yield the lines of a plain file, stripped of white space; nothing for anything else."""
    if file.is_file() and file.stat().st_size <= LARGEST:
        with file.open("rb") as opened:
            while line := opened.readline(LONGEST):
                yield line.decode(errors="replace").strip()
