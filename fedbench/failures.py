"""Clients that fail: what a turn without a result is, and how it travels to the server.

Any exception in a client's turn is the client's failure, a loss or upload that is not finite
included; ``failures.policy`` decides what follows. Two kinds are never the client's and end the run
under every policy: a rule that a plugin or config breaks (`PluginError`, `ConfigError`), since it
would only be hidden, and a lack of memory, since the result would depend on the machine.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .errors import NO_MEMORY, ConfigError, FedbenchError, PluginError
from .types import Failure

NOT_THE_CLIENTS = (PluginError, ConfigError, MemoryError, torch.OutOfMemoryError)
"""Errors that end the run under every policy."""

LONGEST = 300
"""Characters of a reason that are kept."""


class ClientFailed(FedbenchError):
    """Raised in a client's turn to fail it on purpose.

    Args:
        kind: what it is counted as, one word: ``dropped``.
        reason: one line for the user.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[1])


class TooFewClients(FedbenchError):
    """Fewer clients of a round are left than ``failures.min_clients``."""


@dataclass(frozen=True, eq=False)
class ClientFailure:
    """A client's turn that gave no result, an answer of an executor beside `ClientResult`.

    It can be pickled whatever the exception is: one that can't be rebuilt becomes a `RuntimeError`
    with its text.

    Args:
        client: its id.
        failures: one for each attempt, the last one with ``lost``.
        error: the last attempt's exception, with its notes.
        seconds: wall-clock time of all attempts.
    """

    client: int
    failures: Sequence[Failure]
    error: Exception
    seconds: float

    @property
    def fatal(self) -> bool:
        """Whether the run ends under every policy."""
        return ends_the_run(self.error)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.client, tuple(self.failures), _portable(self.error), self.seconds)


def ends_the_run(error: Exception) -> bool:
    """Whether ``error`` is not the client's failure; see the module's docstring."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, NOT_THE_CLIENTS) or any(words in text for words in NO_MEMORY)


def failure(client: int, attempt: int, error: Exception, lost: bool) -> Failure:
    """Describe a failed attempt."""
    kind = getattr(error, "kind", None) or type(error).__name__
    text = str(error) if isinstance(error, FedbenchError) else f"{type(error).__name__}: {error}"
    return Failure(client, attempt, str(kind), " ".join(text.split())[:LONGEST], lost)


def _portable(error: Exception) -> tuple[bytes | None, str, list[str]]:
    """Return an exception as bytes when it can be rebuilt, else as text, and its notes."""
    notes = list(getattr(error, "__notes__", []))
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # an exception class that can't be rebuilt is reported by its text
        return None, f"{type(error).__name__}: {error}", notes
    return data, str(error), notes


def _rebuild(
    client: int,
    failures: Sequence[Failure],
    portable: tuple[bytes | None, str, list[str]],
    seconds: float,
) -> ClientFailure:
    raw, text, notes = portable
    error: Exception = pickle.loads(raw) if raw is not None else RuntimeError(text)
    for note in notes:
        if note not in getattr(error, "__notes__", []):
            error.add_note(note)
    return ClientFailure(client, failures, error, seconds)
