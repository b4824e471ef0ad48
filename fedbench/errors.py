"""Errors that a user can act on: one line that says what is wrong, where, and what is valid."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

NO_MEMORY = (
    *("out of memory", "can't allocate memory", "Cannot allocate memory", "not enough memory"),
    "ALLOC_FAILED",
)
"""What libraries say when memory runs out; on the CPU, torch has no exception class for that."""

NO_ROOM = (
    *("No space left on device", "Disk quota exceeded", "can't start new thread"),
    *("object store is full", "object store because it is full", "Local disk is full"),
)
"""What libraries say when the system refuses something else, in errors without a number."""

SYSTEM = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ESTALE", "ENODEV", "ENXIO", "ENOLCK"),
        *("ENOMEM", "EAGAIN", "EMFILE", "ENFILE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENETDOWN", "ENETUNREACH", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED"),
    )
    if hasattr(errno, name)
)
"""Numbers of errors of the operating system that are not the program's fault."""


class FedbenchError(Exception):
    """An error whose text is meant for the user; the command line prints it without a traceback."""


class ConfigError(FedbenchError):
    """A config, flag or option cannot be used."""


class MissingClassError(ConfigError):
    """A run's config names a plugin that was a class in memory, and nobody has given the class."""


class PluginError(FedbenchError):
    """A plugin cannot be found or loaded, or it broke a rule of its hook."""


class TemporaryError(FedbenchError):
    """Something outside the run stopped it; the same command may succeed another time."""


class NonFiniteError(FedbenchError):
    """A loss, weight, upload or metric became NaN or infinite."""

    kind = "not_finite"


def temporary(error: BaseException) -> bool:
    """Return whether the machine caused ``error``, not the method, config or data of a run.

    That is a lack of memory or disk space, a lost worker or node, or another process in the way.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, (MemoryError, TemporaryError)):
            return True
        if isinstance(found, OSError) and found.errno in SYSTEM:
            return True
        if not isinstance(found, FedbenchError):
            text = str(found)
            if any(words in text for words in (*NO_MEMORY, *NO_ROOM)):
                return True
        found = found.__cause__
    return False


LISTED = 100
"""How many known names a message lists at most."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known name, or else the known names.

    Of very many names, only some that resemble it most are listed.

    Args:
        name: what the user wrote.
        known: every valid name.
    """
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {near[0]!r}?)"
    if len(options) > LISTED:
        some = difflib.get_close_matches(name, options, n=5, cutoff=0.0)
        return f" ({len(options)} are known, among them {', '.join(sorted(some))})"
    return f" (known: {', '.join(options)})" if options else " (there are none)"
