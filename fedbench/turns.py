"""Clients' turns in virtual time: what one takes, when a round ends, and what is still under way.

Virtual time is in seconds and begins at 0. It decides the order of events; how fast the machine
computes decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from .values import Payload, Value, nbytes

if TYPE_CHECKING:
    from .failures import ClientFailure
    from .types import ClientResult


@dataclass(frozen=True)
class Failure:
    """One thing that went wrong in a client's turn.

    Args:
        client: its id.
        attempt: which attempt of the turn, from 1.
        kind: what it is counted as: ``dropped``, ``not_finite``, an exception's name.
        reason: one line for the user; it may differ between machines, so it is never hashed.
        lost: whether the round continued without the client.
    """

    client: int
    attempt: int
    kind: str
    reason: str
    lost: bool


@dataclass(frozen=True)
class Effort:
    """What a client's turn takes; a clock turns it into virtual seconds.

    Args:
        client: the client's id.
        round: the round in which it started.
        start: when it started, in virtual seconds.
        examples: how many examples it trained on, those of every epoch, pass and attempt.
        bytes_down: how much the server sent it.
        bytes_up: how much it sent the server; 0 for a turn that failed.
    """

    client: int
    round: int
    start: float
    examples: int
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True)
class Pace:
    """When a round ends, and what becomes of clients that are still at work then.

    The default is the synchronous round: all selected clients start, and the round ends when the
    last of them has answered.

    Args:
        results: end it when so many clients have answered; ``None`` for all that are at work.
        seconds: end it after so many virtual seconds at the latest, or with the first results after
            that if there are fewer than ``failures.min_clients``.
        at_work: how many clients work at the same time. Those selected start in the order in which
            ``select_clients`` returned them, the next one when one has answered; a client takes
            part in a round once. ``None``: all start at the beginning of the round.
        late: whether clients that have not answered are dropped, or keep working and answer in a
            later round.
    """

    results: int | None = None
    seconds: float | None = None
    at_work: int | None = None
    late: Literal["dropped", "kept"] = "dropped"

    def __post_init__(self) -> None:
        for name in ("results", "seconds", "at_work"):
            value = getattr(self, name)
            if value is not None and not (value > 0 if name == "seconds" else value >= 1):
                raise ValueError(f"a pace with {name} {value!r} never ends a round")


@dataclass(frozen=True)
class Turn:
    """A client's turn that ended in a round.

    Args:
        client: the client's id.
        round: the round in which it started, whose model it received.
        start: when, in virtual seconds.
        end: when it answered, or was dropped.
        outcome: ``used`` in the round's update, ``failed``, or ``dropped`` because it was late.
    """

    client: int
    round: int
    start: float
    end: float
    outcome: Literal["used", "failed", "dropped"]


@dataclass(frozen=True, eq=False)
class AtWork:
    """A client's turn that has not ended.

    Args:
        client: the client's id.
        round: the round in which it started.
        start: when, in virtual seconds.
        end: when its answer arrives.
        answer: its answer; ``None`` if it has to be computed again, as after an interruption. It is
            the same then, since turns are pure functions.
    """

    client: int
    round: int
    start: float
    end: float
    answer: ClientResult | ClientFailure | None = None


@dataclass(frozen=True, eq=False)
class Sent:
    """What the server sent to the clients that started in a round.

    Args:
        travels: the values by key, as they travelled.
        plain: the same, decoded.
    """

    travels: Mapping[str, Value]
    plain: Payload

    @cached_property
    def nbytes(self) -> int:
        """How many bytes each of them received."""
        return sum(nbytes(value) for value in self.travels.values())


@dataclass(frozen=True, eq=False)
class Flight:
    """The virtual time at the end of a round, and the clients that are at work then.

    Args:
        now: virtual seconds.
        turns: the clients' turns; one at most for each client.
        sent: round -> what these clients were sent; nothing is kept for longer than it is needed.
    """

    now: float = 0.0
    turns: tuple[AtWork, ...] = ()
    sent: Mapping[int, Sent] = field(default_factory=dict)
