"""Where a round's time goes, by the wall clock and in the clients.

Timers are laid around the core's steps and every plugin's hooks while a profiled run lasts, so that
an ordinary run pays nothing for them. Time is counted once: what a step spends in a timed step
inside it is not its own.
"""

from __future__ import annotations

import inspect
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from .. import context, runtime
from ..config.build import build_plugins
from ..config.model import RunConfig
from ..context import ClientContext
from ..plugins.hooks import RunPlugins
from ..plugins.registry import Registry
from ..plugins.rules import RUN_HOOKS
from ..runtime import Runtime
from ..store.client_states import ClientStates
from ..types import RoundResult
from . import round as rounds
from .run import Run

CLIENT = "profile: "
"""Begins the names under which a client's times travel beside its metrics; taken out on arrival."""

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
    "personal_models": "evaluation",
    "round_end": "observers",
}
"""Hook -> the step that it belongs to; others stand under their own name."""


class Timer:
    """Seconds by name, each second counted once, in the innermost step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[list[Any]] = []

    def start(self, name: str) -> None:
        """Begin a step."""
        self._open.append([name, time.perf_counter(), 0.0])

    def stop(self) -> None:
        """End the innermost step."""
        name, began, inside = self._open.pop()
        elapsed = time.perf_counter() - began
        self.seconds[name] += elapsed - inside
        if self._open:
            self._open[-1][2] += elapsed

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens inside as ``name``."""
        self.start(name)
        try:
            yield
        finally:
            self.stop()


@dataclass
class Profile:
    """The times of one round, in seconds.

    Args:
        round: its number.
        seconds: the whole round by the wall clock.
        server: step -> seconds of the process that runs the server; they add up to ``seconds``.
        clients: step -> seconds in client turns, summed over clients, also those that ran at once.
        turns: how many clients there were.
    """

    round: int
    seconds: float
    server: Mapping[str, float]
    clients: Mapping[str, float]
    turns: int


@dataclass
class _Watch:
    """The timer of the part that runs now, and the clients' sums."""

    timer: Timer = field(default_factory=Timer)
    clients: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    turns: int = 0


def profile(config: RunConfig, registry: Registry, **more: Any) -> Iterator[Profile]:
    """Run a config and yield where the time of each round went; ``more`` as in `Run`.

    The first round holds what is done once (memory, caches, compiled kernels): look at the others.

    Raises:
        FedbenchError: as `Run.rounds`.
    """
    watch = _Watch()
    with _timers(watch):
        run = Run(config, registry=registry, **more).rounds()
        while True:
            watch.timer, watch.clients, watch.turns = Timer(), defaultdict(float), 0
            with watch.timer.step("rest"):
                result = next(run, None)
            if result is None:
                return
            # What comes before the first round (imports, data, workers) is not of that round.
            server = dict(watch.timer.seconds)
            server["rest"] = max(0.0, server["rest"] - (sum(server.values()) - result.seconds))
            yield _profile(result, server, watch)


def _profile(result: RoundResult, server: dict[str, float], watch: _Watch) -> Profile:
    return Profile(result.round, sum(server.values()), server, dict(watch.clients), watch.turns)


@contextmanager
def _timers(watch: _Watch) -> Iterator[None]:
    """Lay timers around the core's steps and the plugins' hooks; take them away at the end."""
    with ExitStack() as stack:

        def around(owner: Any, name: str, title: str) -> None:
            _replace(stack, owner, name, _timed(getattr(owner, name), watch, lambda: title))

        for owner, name, title in (
            (context, "forward", "forward"),
            (ClientContext, "prepare", "data"),
            (ClientContext, "upload", "uploads"),
            (ClientContext, "result", "uploads"),
            (Runtime, "client_data", "data"),
            (torch.Tensor, "backward", "backward"),
            (ClientStates, "stage", "client states"),
            (rounds.Rounds, "_evaluate", "evaluation"),
        ):
            around(owner, name, title)
        _replace(stack, ClientContext, "batches", _timed_batches(ClientContext.batches, watch))
        _replace(stack, Runtime, "run_client", _client(Runtime.run_client, watch))
        _replace(stack, runtime, "build_plugins", _plugins(build_plugins, watch))
        _replace(stack, rounds.Rounds, "__init__", _waiting(rounds.Rounds.__init__, watch))
        for handle in (
            register_optimizer_step_pre_hook(lambda *_: watch.timer.start("optimiser")),
            register_optimizer_step_post_hook(lambda *_: watch.timer.stop()),
        ):
            stack.callback(handle.remove)
        yield


def _replace(stack: ExitStack, owner: Any, name: str, new: Any) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, new)


def _timed(function: Callable[..., Any], watch: _Watch, title: Callable[[], str]) -> Any:
    @wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        with watch.timer.step(title()):
            return function(*args, **given)

    return call


def _timed_batches(function: Callable[..., Any], watch: _Watch) -> Any:
    @wraps(function)
    def call(*args: Any, **given: Any) -> Iterator[Any]:
        return _stepwise(function(*args, **given), watch, "data")

    return call


def _stepwise(iterator: Iterator[Any], watch: _Watch, title: str) -> Iterator[Any]:
    """Yield what ``iterator`` does; the time until each value is the step ``title``."""
    while True:
        with watch.timer.step(title):
            try:
                value = next(iterator)
            except StopIteration:
                return
        yield value


def _client(function: Callable[..., Any], watch: _Watch) -> Any:
    """Give each client's turn a timer of its own; its times leave beside the metrics."""

    @wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        outer, watch.timer = watch.timer, Timer()
        try:
            with watch.timer.step("rest"):
                result = function(*args, **given)
            times = {CLIENT + name: seconds for name, seconds in watch.timer.seconds.items()}
            if hasattr(result, "metrics"):
                result = replace(result, metrics={**result.metrics, **times})
            return result
        finally:
            watch.timer = outer

    return call


def _waiting(function: Callable[..., Any], watch: _Watch) -> Any:
    """Time how long the server waits for clients, and take their times out of the results."""

    @wraps(function)
    def init(self: Any, *args: Any, **given: Any) -> None:
        function(self, *args, **given)
        self._workers = _TimedWorkers(self._workers, watch)

    return init


class _TimedWorkers:
    def __init__(self, workers: Any, watch: _Watch) -> None:
        self._workers, self._watch = workers, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workers, name)

    def run(self, *args: Any, **given: Any) -> Iterator[Any]:
        watch = self._watch
        results = _stepwise(self._workers.run(*args, **given), watch, "waiting for clients")
        for result in results:
            if not hasattr(result, "metrics"):
                yield result
                continue
            watch.turns += 1
            for name, value in result.metrics.items():
                if name.startswith(CLIENT):
                    watch.clients[name.removeprefix(CLIENT)] += value
            own = {k: v for k, v in result.metrics.items() if not k.startswith(CLIENT)}
            yield replace(result, metrics=own)


def _plugins(function: Callable[..., Any], watch: _Watch) -> Any:
    """Time every hook of every plugin."""

    @wraps(function)
    def build(*args: Any, **given: Any) -> RunPlugins:
        plugins: RunPlugins = function(*args, **given)
        for hook in RUN_HOOKS:
            step = TITLES.get(hook, hook)
            for implementation in getattr(plugins.hook, hook).get_hookimpls():
                title = f"{step}: {implementation.plugin_name}"
                inner = implementation.function
                wrap = _hook_generator if inspect.isgeneratorfunction(inner) else _hook_function
                # pluggy passes arguments by position, in the order that it noted at registration.
                implementation.function = wrap(inner, watch, title)
        return plugins

    return build


def _hook_function(function: Callable[..., Any], watch: _Watch, title: str) -> Any:
    return _timed(function, watch, lambda: title)


def _hook_generator(function: Callable[..., Any], watch: _Watch, title: str) -> Any:
    """Time a hook that yields: a wrapper, or one that gives its values one by one."""

    @wraps(function)
    def call(*args: Any) -> Generator[Any, Any, Any]:
        generator = function(*args)
        sent: Any = None
        error: BaseException | None = None
        while True:
            with watch.timer.step(title):
                try:
                    given = generator.send(sent) if error is None else generator.throw(error)
                except StopIteration as end:
                    return end.value
            sent, error = None, None
            try:
                sent = yield given
            except GeneratorExit:
                generator.close()
                raise
            except BaseException as raised:
                error = raised

    return call
