"""Which results a round uses: clients start and answer in the order of virtual time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import groupby
from typing import Literal, TypeAlias

from ..failures import ClientFailure
from ..turns import AtWork, Effort, Flight, Pace, Sent, Turn
from ..types import ClientResult, Value, nbytes

Answer: TypeAlias = ClientResult | ClientFailure

Compute: TypeAlias = Callable[[int, Mapping[str, Value], Sequence[int]], Iterator[Answer]]
"""Called with a round, what its clients were sent, and clients; yields answers by client id."""

Clock: TypeAlias = Callable[[Effort], float]
"""Returns how many virtual seconds a turn takes."""


class Turns:
    """The clients' turns that end in one round; iterate once, for their answers by client id.

    When all selected clients are waited for, the answers pass through as they are computed. Any
    other pace has to know when clients answer before it can choose, so the answers of those at work
    are held. They need not be computed in the order of virtual time, because a turn depends only on
    the client and on what it received: all turns that will start in a round are computed at once.

    Args:
        round: the round.
        pace: when it ends.
        needed: how many results it needs at least.
        order: the selected clients, in the order in which they start; those at work are left out.
        sent: what those that start in this round receive.
        before: the virtual time so far, and the clients that are at work.
        compute: computes turns.
        clock: states their durations.

    Attributes:
        now: virtual seconds; at the end of the round once everything was iterated over.
        started: how many turns started in the round.
        ended: the turns that ended so far; those that were dropped are among them.
    """

    def __init__(
        self,
        *,
        round: int,
        pace: Pace,
        needed: int,
        order: Sequence[int],
        sent: Sent,
        before: Flight,
        compute: Compute,
        clock: Clock,
    ) -> None:
        self._round, self._pace, self._needed = round, pace, needed
        self._before, self._sent = before, {**before.sent, round: sent}
        self._compute, self._clock = compute, clock
        busy = {turn.client for turn in before.turns}
        self._order = [client for client in order if client not in busy]
        self._at_work: list[tuple[float, int, AtWork]] = []
        self.now, self.started = before.now, 0
        self.ended: list[Turn] = []
        self._held: list[AtWork] | None = None
        if pace != Pace() or busy:
            self._held = sorted(self._until_the_end(), key=lambda turn: turn.client)

    def __len__(self) -> int:
        return len(self._order if self._held is None else self._held)

    def __iter__(self) -> Iterator[Answer]:
        for turn in self._all() if self._held is None else self._held:
            answer = turn.answer
            assert answer is not None
            failed = isinstance(answer, ClientFailure)
            self._end(turn, turn.end, "failed" if failed else "used")
            if isinstance(answer, ClientResult):
                sent = self._sent[turn.round].plain
                answer = replace(answer, sent=sent, staleness=self._round - turn.round)
            yield answer

    @property
    def clients(self) -> tuple[int, ...]:
        """The ids of the clients whose turns end in the round, ascending."""
        if self._held is None:
            return tuple(sorted(self._order))
        dropped = (turn.client for turn in self.ended if turn.outcome == "dropped")
        return tuple(sorted({*(turn.client for turn in self._held), *dropped}))

    @property
    def after(self) -> Flight:
        """The virtual time at the end of the round, and the clients that are at work then."""
        turns = sorted((turn for *_, turn in self._at_work), key=lambda turn: turn.client)
        used = {turn.round for turn in turns}
        return Flight(self.now, tuple(turns), {r: s for r, s in self._sent.items() if r in used})

    def _all(self) -> Iterator[AtWork]:
        """Start all clients now and wait for each of them; nothing is held."""
        sent = self._sent[self._round].travels
        for answer in self._compute(self._round, sent, self._order):
            turn = self._start(answer, self._before.now)
            self.now = max(self.now, turn.end)
            yield turn

    def _until_the_end(self) -> Iterator[AtWork]:
        """Let virtual time pass until the round ends; yield the turns that end, in that order."""
        pace, results = self._pace, 0
        limit = self.now + (math.inf if pace.seconds is None else pace.seconds)
        self._at_work = [(turn.end, turn.client, turn) for turn in self._recomputed()]
        heapify(self._at_work)
        waiting = deque(self._order)
        answers = self._computed(waiting)
        while pace.results is None or results < pace.results:
            while waiting and (pace.at_work is None or len(self._at_work) < pace.at_work):
                client = waiting.popleft()
                if client not in answers:
                    answers |= self._answers(self._round, [client])
                turn = self._start(answers.pop(client), self.now)
                heappush(self._at_work, (turn.end, client, turn))
            if not self._at_work:
                break
            if results >= self._needed and self._at_work[0][0] > limit:
                self.now = max(self.now, limit)
                break
            end, _, turn = heappop(self._at_work)
            self.now = max(self.now, end)
            results += not isinstance(turn.answer, ClientFailure)
            yield turn
        if pace.late == "dropped":
            for *_, turn in self._at_work:
                self._end(turn, self.now, "dropped")
            self._at_work = []

    def _computed(self, waiting: Sequence[int]) -> dict[int, Answer]:
        """Return the answers of those who will start in this round, unless others fail."""
        count, pace = len(waiting), self._pace
        if pace.at_work is not None and pace.results is not None:
            count = max(0, pace.at_work - len(self._at_work)) + pace.results - 1
        return self._answers(self._round, list(waiting)[:count])

    def _recomputed(self) -> Iterator[AtWork]:
        """Yield the turns under way, with their answers, which are not kept when interrupted."""
        lost = [turn for turn in self._before.turns if turn.answer is None]
        found: dict[int, Answer] = {}
        for round, turns in groupby(sorted(lost, key=_round_of), key=_round_of):
            found |= self._answers(round, [turn.client for turn in turns])
        for turn in self._before.turns:
            yield replace(turn, answer=turn.answer or found[turn.client])

    def _answers(self, round: int, clients: Sequence[int]) -> dict[int, Answer]:
        found: dict[int, Answer] = {}
        if clients:
            for answer in self._compute(round, self._sent[round].travels, clients):
                if isinstance(answer, ClientFailure) and answer.fatal:
                    raise answer.error
                found[answer.client] = answer
        return found

    def _start(self, answer: Answer, start: float) -> AtWork:
        """Return the turn of this answer, which starts at ``start``."""
        self.started += 1
        uploads = {} if isinstance(answer, ClientFailure) else answer.uploads
        effort = Effort(
            client=answer.client,
            round=self._round,
            start=start,
            examples=answer.trained,
            bytes_down=self._sent[self._round].nbytes,
            bytes_up=sum(map(nbytes, uploads.values())),
        )
        return AtWork(answer.client, self._round, start, start + self._clock(effort), answer)

    def _end(self, turn: AtWork, end: float, outcome: Literal["used", "failed", "dropped"]) -> None:
        self.ended.append(Turn(turn.client, turn.round, turn.start, end, outcome))


def _round_of(turn: AtWork) -> int:
    return turn.round
