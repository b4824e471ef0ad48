"""The order of events in virtual time: schedules computed by hand, and what holds for any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench import ConfigError, hookimpl, testing
from fedbench.engine.timing import Turns
from fedbench.errors import PluginError
from fedbench.failures import ClientFailed, ClientFailure, failure
from fedbench.turns import Effort, Flight, Pace, Sent, Turn
from fedbench.types import ClientResult, Payload

NOTHING = Sent({}, Payload({}, "the broadcast"))


class Server:
    """Plays rounds of turns without a run: clients take fixed times, and nothing is trained."""

    def __init__(self, pace: Pace, seconds: Mapping[int, float], failing: Sequence[int] = ()):
        self.pace, self.seconds, self.failing = pace, seconds, failing
        self.flight, self.round = Flight(), 0
        self.computed: list[tuple[int, list[int]]] = []
        self.started = 0

    def compute(
        self, round: int, travels: Mapping[str, Any], clients: Sequence[int]
    ) -> Iterator[ClientResult | ClientFailure]:
        self.computed.append((round, sorted(clients)))
        for client in sorted(clients):
            if client in self.failing:
                error = ClientFailed("dropped", "dropped out")
                yield ClientFailure(client, [failure(client, 1, error, True)], error, 0.0)
            else:
                yield testing.client_result(client=client)

    def play(self, order: Sequence[int], needed: int = 1) -> tuple[float, dict[int, int], Turns]:
        """Play a round; return its end, client -> staleness of its results, and the turns."""
        self.round += 1
        turns = Turns(
            round=self.round,
            pace=self.pace,
            needed=needed,
            order=order,
            sent=NOTHING,
            before=self.flight,
            compute=self.compute,
            clock=lambda effort: self.seconds[effort.client],
        )
        answers = list(turns)
        assert [answer.client for answer in answers] == sorted(answer.client for answer in answers)
        self.flight = turns.after
        self.started += turns.started
        used = {a.client: a.staleness for a in answers if isinstance(a, ClientResult)}
        return turns.now, used, turns


def under_way(server: Server) -> list[tuple[int, int, float, float]]:
    return [(t.client, t.round, t.start, t.end) for t in server.flight.turns]


SPEEDS = {0: 1.0, 1: 2.0, 2: 5.0}


def test_synchronous_rounds_wait_for_the_slowest() -> None:
    server = Server(Pace(), SPEEDS)
    assert [server.play([2, 0, 1])[0] for _ in range(3)] == [5, 10, 15]
    assert server.flight.turns == ()
    assert server.computed == [(1, [0, 1, 2]), (2, [0, 1, 2]), (3, [0, 1, 2])]


def test_two_results_per_update_computed_by_hand() -> None:
    server = Server(Pace(results=2, at_work=3, late="kept"), SPEEDS)
    assert server.play([0, 1, 2])[:2] == (2, {0: 0, 1: 0})
    assert under_way(server) == [(2, 1, 0, 5)]
    assert server.play([0, 1, 2])[:2] == (4, {0: 0, 1: 0})
    assert under_way(server) == [(2, 1, 0, 5)]
    now, used, turns = server.play([0, 1, 2])  # clients 0 and 2 answer together, 0 first
    assert (now, used) == (5, {0: 0, 2: 2})
    assert turns.ended == [Turn(0, 3, 4, 5, "used"), Turn(2, 1, 0, 5, "used")]
    assert under_way(server) == [(1, 3, 4, 6)]
    assert server.play([0, 1, 2])[:2] == (6, {0: 0, 1: 1})
    assert under_way(server) == [(2, 4, 5, 10)]


def test_the_next_client_starts_when_one_has_answered() -> None:
    server = Server(Pace(results=2, at_work=2, late="kept"), SPEEDS)
    now, used, turns = server.play([2, 0, 1])
    assert (now, used) == (3, {0: 0, 1: 0})
    assert turns.ended == [Turn(0, 1, 0, 1, "used"), Turn(1, 1, 1, 3, "used")]
    now, used, turns = server.play([2, 0, 1])
    assert (now, used) == (5, {0: 0, 2: 1})
    assert turns.ended == [Turn(0, 2, 3, 4, "used"), Turn(2, 1, 0, 5, "used")]
    assert under_way(server) == [(1, 2, 4, 6)]


def test_one_at_a_time_computed_by_hand() -> None:
    server = Server(Pace(results=1, at_work=2, late="kept"), SPEEDS)
    found = [server.play([0, 1, 2])[:2] for _ in range(4)]
    # 0 answers at 1 and starts again; at 2, 0 and 1 have answered, and 0 comes first
    assert found == [(1, {0: 0}), (2, {0: 0}), (2, {1: 2}), (3, {0: 1})]


def test_late_clients_are_dropped_at_a_deadline() -> None:
    server = Server(Pace(seconds=2.5), SPEEDS)
    now, used, turns = server.play([0, 1, 2])
    assert (now, used, turns.clients) == (2.5, {0: 0, 1: 0}, (0, 1, 2))
    assert turns.ended[0] == Turn(2, 1, 0, 2.5, "dropped")
    assert server.flight.turns == ()
    assert server.play([0])[0] == 3.5  # nobody is late: it ends with the last answer


def test_late_clients_go_on_and_are_not_asked_meanwhile() -> None:
    server = Server(Pace(seconds=2.5, late="kept"), SPEEDS)
    assert server.play([0, 1, 2])[:2] == (2.5, {0: 0, 1: 0})
    assert under_way(server) == [(2, 1, 0, 5)]
    now, used, turns = server.play([0, 1, 2])
    assert (now, used, turns.started) == (5, {0: 0, 1: 0, 2: 1}, 2)


def test_a_round_goes_on_after_its_deadline_until_it_has_results() -> None:
    server = Server(Pace(seconds=0.5), SPEEDS)
    assert server.play([0, 1, 2])[:2] == (1, {0: 0})
    assert server.play([0, 1, 2], needed=2)[:2] == (3, {0: 0, 1: 0})


def test_the_first_ones_are_used_and_the_others_dropped() -> None:
    server = Server(Pace(results=2), SPEEDS)
    now, used, turns = server.play([2, 1, 0])
    assert (now, used) == (2, {0: 0, 1: 0})
    assert Counter(turn.outcome for turn in turns.ended) == {"used": 2, "dropped": 1}


def test_a_failing_client_takes_its_time_and_makes_room_for_another() -> None:
    server = Server(Pace(results=1, at_work=1, late="kept"), SPEEDS, failing=[0])
    now, used, turns = server.play([0, 1, 2])
    assert (now, used) == (3, {1: 0})
    assert turns.ended == [Turn(0, 1, 0, 1, "failed"), Turn(1, 1, 1, 3, "used")]


def test_what_will_start_in_a_round_is_computed_at_once() -> None:
    server = Server(Pace(results=3, at_work=4, late="kept"), dict.fromkeys(range(9), 1.0))
    server.play(range(9))
    assert server.computed == [(1, [0, 1, 2, 3, 4, 5])]
    assert server.started == 6


def test_answers_are_computed_again_after_an_interruption() -> None:
    one, other = (Server(Pace(results=2, at_work=3, late="kept"), SPEEDS) for _ in range(2))
    rounds = []
    for server in (one, other):
        server.play([0, 1, 2])
        if server is other:
            turns = tuple(type(t)(t.client, t.round, t.start, t.end) for t in server.flight.turns)
            server.flight = Flight(server.flight.now, turns, server.flight.sent)
        rounds.append([server.play([0, 1, 2])[:2] for _ in range(3)])
    assert rounds[0] == rounds[1]
    assert other.computed[1] == (1, [2])


def test_payloads_are_kept_while_somebody_works_on_them() -> None:
    server = Server(Pace(results=2, at_work=3, late="kept"), SPEEDS)
    held = []
    for _ in range(4):
        server.play([0, 1, 2])
        held.append(sorted(server.flight.sent))
    assert held == [[1], [1], [3], [4]]


def test_memory_is_flat_over_a_thousand_arrivals() -> None:
    seconds = {client: 1.0 + client % 7 for client in range(50)}
    server = Server(Pace(results=1, at_work=10, late="kept"), seconds)
    for number in range(1000):
        turns = server.play([(number + client) % 50 for client in range(50)])[2]
        assert len(turns.ended) == 1
        assert len(server.flight.turns) == 9
        assert len(server.flight.sent) <= 9
    assert server.started == 1009


paces = st.builds(
    Pace,
    results=st.none() | st.integers(1, 6),
    seconds=st.none() | st.floats(0.1, 10),
    at_work=st.none() | st.integers(1, 8),
    late=st.sampled_from(["dropped", "kept"]),
)


@settings(max_examples=60)
@given(
    pace=paces,
    seconds=st.lists(st.sampled_from([0.5, 1.0, 2.0, 7.0]), min_size=1, max_size=8),
    failing=st.sets(st.integers(0, 7), max_size=3),
    data=st.data(),
)
def test_every_turn_ends_once_or_is_under_way(
    pace: Pace, seconds: list[float], failing: set[int], data: st.DataObject
) -> None:
    server = Server(pace, dict(enumerate(seconds)), sorted(failing))
    clients, ended, now = range(len(seconds)), list[Turn](), 0.0
    for _ in range(5):
        size = data.draw(st.integers(1, len(seconds)))
        order = data.draw(st.permutations(clients))[:size]
        turns = server.play(order)[2]
        ended += turns.ended
        assert turns.now >= now
        now = turns.now
        assert len({turn.client for turn in turns.ended}) == len(turns.ended)
        assert all(turn.end <= now for turn in turns.ended)
        assert all(turn.end >= now for turn in server.flight.turns)
        assert set(server.flight.sent) == {turn.round for turn in server.flight.turns}
        if pace.late == "dropped":
            assert not server.flight.turns
    assert server.started == len(ended) + len(server.flight.turns)
    pairs = [(turn.client, turn.round) for turn in (*ended, *server.flight.turns)]
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("field", ["results", "seconds", "at_work"])
def test_a_pace_that_never_ends_a_round_is_an_error(field: str) -> None:
    with pytest.raises(ValueError, match=f"^a pace with {field} 0 never ends a round$"):
        Pace(**{field: 0})


def test_a_plugin_breaks_the_rules_of_time(add: Any, run_tiny: Any) -> None:
    @dataclass(frozen=True, eq=False)
    class Backwards:
        @hookimpl
        def duration(self, effort: Effort) -> float:
            return -1.0

    @dataclass(frozen=True, eq=False)
    class Vague:
        @hookimpl
        def schedule(self) -> str:
            return "soon"

    add(backwards=Backwards, vague=Vague)
    with pytest.raises(PluginError, match=r"'backwards': duration returned -1\.0 for client 0 in"):
        run_tiny(extra={"backwards": {}})
    with pytest.raises(PluginError, match=r"'vague': schedule returned str; return a Pace"):
        run_tiny(extra={"constant": {}, "vague": {}})
    with pytest.raises(ConfigError, match=r"'vague' decides by virtual time, and this run has no"):
        run_tiny(extra={"vague": {}})
