"""Measure where a round's time goes: on the server by the wall clock, and in the clients' turns.

A `Stopwatch` times the run's phases and every plugin's hooks; an ordinary run has none and pays
nothing for it. Each second is counted once: time in a nested step belongs to the inner step only.
`Kept` notes how many bytes clients keep between their turns.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..config.model import RunConfig
from ..failures import ClientFailure
from ..plugins.registry import Registry
from ..types import ClientJob, ClientResult, RoundResult, Value
from ..values import nbytes
from ..watching import Call, Watch
from .run import Run

CLIENT = "profile: "
"""Prefix of the names under which a client's times travel among its metrics, until they arrive."""

TURNS = f"{CLIENT}turns"
"""The name under which a turn, unlike the making of a client's own model, counts itself."""

TITLES = {
    "prepare_data": "data",
    "client_data": "data",
    "transform": "data",
    "local_loss": "loss terms",
    "aggregate": "aggregation",
    "server_update": "server update",
    "select_clients": "selection and broadcast",
    "broadcast": "selection and broadcast",
    "inference": "evaluation",
    "personalize": "evaluation",
    "send_broadcast": "selection and broadcast",
    "receive_uploads": "aggregation",
    "run_start": "observers",
    "round_end": "observers",
    "conclude": "observers",
    "run_end": "observers",
}
"""Hook -> the step that it belongs to; other hooks are listed under their own name."""


class Timer:
    """Adds up seconds by step; each second is counted once, in the innermost step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block under ``name``."""
        self._inside.append(0.0)
        began = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - began
            self.seconds[name] += elapsed - self._inside.pop()
            if self._inside:
                self._inside[-1] += elapsed


@dataclass
class Profile:
    """The times of one round, in seconds.

    Args:
        round: its number.
        seconds: the whole round by the wall clock.
        server: step -> seconds in the process that runs the server; they add up to ``seconds``.
        clients: step -> seconds in client turns, summed over clients, including parallel ones.
        turns: how many clients there were.
    """

    round: int
    seconds: float
    server: Mapping[str, float]
    clients: Mapping[str, float]
    turns: int


class Stopwatch(Watch):
    """Times whichever part of a run is executing: the server's part or a client's turn."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget all times; ``clients`` then sums those of turns that arrive afterwards."""
        self.timer = Timer()
        self.clients: dict[str, float] = defaultdict(float)
        self.turns = 0

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time a phase under its name."""
        return self.timer.step(name)

    def call(self, call: Call, run: Callable[[], Any]) -> Any:
        """Time a hook under its step and plugin."""
        with self.phase(_title(call)):
            return run()

    def generate(self, call: Call, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Time a hook that yields, excluding the time while it is suspended."""
        resume: Callable[[], Any] = partial(next, steps)
        while True:
            with self.phase(_title(call)):
                try:
                    value = resume()
                except StopIteration as end:
                    return end.value
            try:
                resume = partial(steps.send, (yield value))
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:
                resume = partial(steps.throw, error)

    def turn(
        self, job: ClientJob, run: Callable[[], ClientResult | ClientFailure]
    ) -> ClientResult | ClientFailure:
        """Time a client's turn with a timer of its own, and send its times among the metrics."""
        outer, self.timer = self.timer, Timer()
        try:
            with self.phase("rest"):
                answer = run()
            times = {CLIENT + name: seconds for name, seconds in self.timer.seconds.items()}
            times[TURNS] = float(job.scored is None)
        finally:
            self.timer = outer
        if isinstance(answer, ClientFailure):
            return answer
        return replace(answer, metrics={**answer.metrics, **times})

    def arrive(self, answer: ClientResult | ClientFailure) -> ClientResult | ClientFailure:
        """Add up a client's times and return its answer with its own metrics only."""
        if isinstance(answer, ClientFailure):
            return answer
        metrics = dict(answer.metrics)
        self.turns += int(metrics.pop(TURNS, 0))
        for name in [name for name in metrics if name.startswith(CLIENT)]:
            self.clients[name.removeprefix(CLIENT)] += metrics.pop(name)
        return replace(answer, metrics=metrics)


class Kept(Watch):
    """Notes how many bytes each client keeps, by key; for the executor `inline`, see `Watch`."""

    def __init__(self) -> None:
        self._bytes: dict[str, dict[str, int]] = {}

    def keep(self, where: str, key: str, value: Value) -> None:
        """Note the size of what a client keeps."""
        self._bytes.setdefault(where.partition(", ")[2], {})[key] = nbytes(value)

    @property
    def largest(self) -> int:
        """The bytes of the client that keeps most."""
        return max((sum(sizes.values()) for sizes in self._bytes.values()), default=0)


def _title(call: Call) -> str:
    return f"{TITLES.get(call.hook, call.hook)}: {call.plugin}"


def profile(config: RunConfig, registry: Registry, **more: Any) -> Iterator[Profile]:
    """Run a config and yield where the time of each round went; for ``more`` see `Run`.

    The first round includes one-off work (memory, caches, compiled kernels): look at the others.

    Raises:
        FedbenchError: as `Run.rounds`.
    """
    watch = Stopwatch()
    run = Run(config, registry=registry, watch=watch, **more).rounds()
    while True:
        watch.restart()
        with watch.phase("rest"):
            result = next(run, None)
        if result is None:
            return
        # What happens before the first round (imports, data, workers) does not belong to it.
        server = dict(watch.timer.seconds)
        seconds = result.seconds + result.personal_seconds
        server["rest"] = max(0.0, server["rest"] - (sum(server.values()) - seconds))
        yield _profile(result, server, watch)


def _profile(result: RoundResult, server: dict[str, float], watch: Stopwatch) -> Profile:
    return Profile(result.round, sum(server.values()), server, dict(watch.clients), watch.turns)
