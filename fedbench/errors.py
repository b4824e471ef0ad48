"""Errors that a user can act on: one line that says what, where, and the nearest right thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "Cannot allocate memory")
"""What torch says when memory runs out; it has no class of its own for that on the CPU."""


class FedbenchError(Exception):
    """An error whose text is meant for the user; the command line prints it without a traceback."""


class ConfigError(FedbenchError):
    """A config, flag or option that can't be used."""


class PluginError(FedbenchError):
    """A plugin that can't be found or loaded, or that broke a rule of its hook."""


class NonFiniteError(FedbenchError):
    """A loss, weight, upload or metric became NaN or infinite."""

    kind = "not_finite"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known name, else the known names.

    Args:
        name: what the user wrote.
        known: every name that would have been right.
    """
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(options)})" if options else " (none is known)"
