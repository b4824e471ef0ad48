"""Errors that a user can act on: one line that says what is wrong, where, and what is valid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "Cannot allocate memory")
"""What torch says when memory runs out; on the CPU it has no exception class for that."""


class FedbenchError(Exception):
    """An error whose text is meant for the user; the command line prints it without a traceback."""


class ConfigError(FedbenchError):
    """A config, flag or option cannot be used."""


class PluginError(FedbenchError):
    """A plugin cannot be found or loaded, or it broke a rule of its hook."""


class NonFiniteError(FedbenchError):
    """A loss, weight, upload or metric became NaN or infinite."""

    kind = "not_finite"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known name, or else all known names.

    Args:
        name: what the user wrote.
        known: every valid name.
    """
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(options)})" if options else " (there are none)"
