"""Clients that fail: what is recorded of a failed turn, and which errors end the run instead.

Any exception in a client's turn is that client's failure, including a loss or upload that is not
finite; ``failures.policy`` decides what happens next. Two kinds of error are never the client's and
end the run under every policy: a plugin or config that breaks a rule (`PluginError`,
`ConfigError`), because continuing would only hide it, and what the machine causes, such as a lack
of memory, because the result would depend on the machine.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError, FedbenchError, PluginError, temporary
from .text import cause, summary
from .types import Failure

LONGEST = 300
"""How many characters of a reason are kept."""


class ClientFailed(FedbenchError):
    """Raised in a client's turn to make it fail on purpose.

    Args:
        kind: what it is counted as, one word such as ``dropped``.
        reason: one line for the user.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[1])


class TooFewClients(FedbenchError):
    """A round has fewer clients left than ``failures.min_clients``."""


@dataclass(frozen=True, eq=False)
class ClientFailure:
    """A client's turn without a result: what an executor yields instead of a `ClientResult`.

    It can always be pickled: an exception that cannot be rebuilt becomes a `RuntimeError` with its
    text.

    Args:
        client: its id.
        failures: one per attempt, the last one with ``lost``.
        error: the last attempt's exception, with its notes.
        seconds: wall-clock time of all attempts.
        trained: how many examples they trained on.
    """

    client: int
    failures: Sequence[Failure]
    error: Exception
    seconds: float
    trained: int = 0

    @property
    def fatal(self) -> bool:
        """Whether the run ends under every policy."""
        return ends_the_run(self.error)

    def __reduce__(self) -> tuple[Any, ...]:
        failures, error = tuple(self.failures), _portable(self.error)
        return _rebuild, (self.client, failures, error, self.seconds, self.trained)


def ends_the_run(error: Exception) -> bool:
    """Return whether ``error`` ends the run under every policy; see the module's docstring."""
    return isinstance(error, (PluginError, ConfigError)) or temporary(error)


def failure(client: int, attempt: int, error: Exception, lost: bool) -> Failure:
    """Return the record of a failed attempt; ``lost`` says whether it was the last."""
    kind = getattr(error, "kind", None) or type(error).__name__
    meant = isinstance(error, FedbenchError)
    text = str(error) if meant else f"{type(error).__name__}: {error} {cause(error)}"
    return Failure(client, attempt, str(kind), summary(text, LONGEST), lost)


def _portable(error: Exception) -> tuple[bytes | None, str, list[str]]:
    """Return an exception's bytes, ``None`` if it cannot be rebuilt, its text and its notes.

    Pickling loses what it was raised from, so that is its first note.
    """
    notes = list(getattr(error, "__notes__", []))
    if not isinstance(error, FedbenchError) and (came_from := cause(error)):
        notes.insert(0, came_from)
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # an exception that cannot be rebuilt is reported by its text
        return None, f"{type(error).__name__}: {error}", notes
    return data, str(error), notes


def _rebuild(
    client: int,
    failures: Sequence[Failure],
    portable: tuple[bytes | None, str, list[str]],
    seconds: float,
    trained: int,
) -> ClientFailure:
    raw, text, notes = portable
    error: Exception = pickle.loads(raw) if raw is not None else RuntimeError(text)
    if notes:
        error.__notes__ = notes
    return ClientFailure(client, failures, error, seconds, trained)
