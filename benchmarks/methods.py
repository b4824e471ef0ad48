"""What each method costs beside FedAvg: a client's turn, and a round on the server.

Every method that is registered is measured in the same way, by playing real rounds of it. In the
first two rounds one client takes its turn, and slightly different copies of what it sends stand in
for the other clients. The turn and the server's part of the second round, when methods have
prototypes and clients a state, are then repeated.

Times are those of the processor on one thread, because other work on the machine changes them
less than wall-clock times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedbench.ambient import settled
from fedbench.engine.round import Rounds
from fedbench.errors import ConfigError
from fedbench.failures import ClientFailure
from fedbench.runtime import Runtime
from fedbench.store.client_states import ClientStates
from fedbench.types import ClientJob, ClientResult, Encoded, Payload, PerClass, ServerState, Value

BASE = "fedavg"
GROUP = 4
"""So many methods share a base's turn: more would let the machine's speed drift between them."""
MEMORY = 1_000_000_000
"""Bytes of clients' states that stay in memory, so that no time is spent on files."""


@dataclass(frozen=True)
class Cost:
    """What a method costs in processor time: medians over the repetitions.

    Attributes:
        turn: a client's turn, as a multiple of FedAvg's in the same repetition.
        extra_ms: the difference of the two.
        server_ms: the server's part of a round.
    """

    turn: float
    extra_ms: float
    server_ms: float


class OneTurn:
    """Workers of which one client takes its turn once a round; copies stand in for the others."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.payload: Mapping[str, Value] = {}
        self.job = ClientJob(0, 0, {})
        self.answers: list[ClientResult] = []

    def run(self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]) -> Iterator[Any]:
        if self.job.round != jobs[0].round:
            self.payload, self.job = payload, jobs[0]
            answer = self._runtime.run_client(self.job, payload)
            if isinstance(answer, ClientFailure):
                raise answer.error
            self.answers = [like(answer, job.client) for job in jobs]
        yield from self.answers

    def test(self, weights: object, chunks: object) -> Iterator[Any]:
        raise AssertionError("no round is scored here")

    def close(self) -> None:
        pass


def like(result: ClientResult, client: int) -> ClientResult:
    """Return what another client might have sent: every number differs by about one percent."""
    rng = torch.Generator().manual_seed(client)
    values = {key: varied(value, rng) for key, value in result.uploads.items()}
    return replace(result, client=client, uploads=Payload(values, f"the uploads of {client}"))


def varied(value: Value, rng: torch.Generator) -> Value:
    def other(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        return x * (1 + 0.01 * torch.randn(x.shape, generator=rng).to(x.dtype))

    if isinstance(value, Tensor):
        return other(value)
    if isinstance(value, PerClass):
        return replace(value, values=other(value.values))
    if isinstance(value, Encoded):
        return value
    return {name: other(x) for name, x in value.items()}


class Method:
    """A method after its first round, ready to repeat parts of the second."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        clients = ClientStates(limit=MEMORY)
        self._workers = OneTurn(runtime)
        self._rounds = Rounds(runtime, self._workers, clients, {}, {}, lambda *_: None)
        with settled(), runtime.streams.scope("server", 0):
            state = self._rounds.initial_state()
        self._state = self._play(state)
        clients.commit(1)
        self.server()  # takes the turn of the second round

    def _play(self, state: ServerState) -> ServerState:
        number = state.round + 1
        with settled(), self._runtime.streams.scope("server", number):
            return self._rounds.play(state.copy(), number)[0]

    def turn(self) -> object:
        """One client's turn in the second round."""
        return self._runtime.run_client(self._workers.job, self._workers.payload)

    def server(self) -> object:
        """The second round without its clients: broadcast, aggregation, update of the server."""
        return self._play(self._state)


def milliseconds(part: Callable[[], object]) -> float:
    started = time.process_time()
    part()
    return (time.process_time() - started) * 1e3


def costs(
    runtime: Callable[[str], Runtime], names: Sequence[str], runs: int
) -> tuple[dict[str, Cost], dict[str, str]]:
    """Return the cost of each method by name, and why others were refused.

    Args:
        runtime: makes a method's run; no round of it may be scored.
        names: the methods.
        runs: repetitions, n; the base takes its turn once in each, for every few methods.
    """
    found: dict[str, Cost] = {}
    refused: dict[str, str] = {}
    base = Method(runtime(BASE))
    for start in range(0, len(names), GROUP):
        group: dict[str, Method] = {}
        for name in names[start : start + GROUP]:
            try:
                group[name] = Method(runtime(name))
            except ConfigError as error:
                refused[name] = str(error)
        found |= compared(base, group, runs)
    return found, refused


def compared(base: Method, methods: Mapping[str, Method], runs: int) -> dict[str, Cost]:
    """Return what methods cost; in each repetition, all of them and the base take turns."""
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    for _ in range(runs):
        whole = milliseconds(base.turn)
        for name, method in methods.items():
            turn = milliseconds(method.turn)
            times[name].append((turn / whole, turn - whole, milliseconds(method.server)))
    return {
        name: Cost(*(statistics.median(column) for column in zip(*rows, strict=True)))
        for name, rows in times.items()
    }
