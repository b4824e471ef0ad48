"""One communication round, readable top to bottom: `Rounds.play`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from ..context import ServerContext
from ..contracts import EvaluatingWorkers, Metric, Workers
from ..errors import ConfigError, NonFiniteError, PluginError, did_you_mean
from ..executors.inline import InlineWorkers
from ..failures import ClientFailed, ClientFailure, TooFewClients
from ..runtime import Runtime
from ..store.client_states import ClientStates
from ..types import (
    ClientJob,
    ClientResult,
    Failure,
    Output,
    Payload,
    Report,
    RoundResult,
    Scores,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    nbytes,
    seal,
)
from ..values import all_finite
from ..watching import each
from .evaluation import classifier_rule, evaluate

Progress = Callable[[int, int, int], None]
"""Called with (round, clients done, clients in the round) after each client."""


@dataclass
class _Arrived:
    """Accumulates the answers of a round's clients."""

    round: int
    selected: int
    done: int = 0
    reports: list[Report] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    bytes_up: Counter[str] = field(default_factory=Counter)


class Rounds:
    """Plays rounds, each from one server state to the next.

    Args:
        runtime: the run's plugins, data, partition and model.
        workers: where clients run; see the executors.
        clients: the clients' states; changes are staged here, and the caller commits them.
        owners: key of a server entry -> the plugin that owns it; grows as plugins write.
        metrics: metrics by name, for the evaluation.
        progress: called after each client.
    """

    def __init__(
        self,
        runtime: Runtime,
        workers: Workers,
        clients: ClientStates,
        owners: dict[str, str],
        metrics: Mapping[str, Metric],
        progress: Progress,
    ) -> None:
        self._runtime, self._workers, self._clients = runtime, workers, clients
        self._owners, self._metrics, self._progress = owners, metrics, progress
        self.digests: dict[int, Mapping[str, str]] = {}
        """Client id -> checksums of what it sent in the last round."""

    def initial_state(self) -> ServerState:
        """Return the state before round 1: the initial weights and the plugins' entries."""
        ctx = self._runtime.server_context(0)
        found = self._runtime.plugins.collect_owned(
            "init_server", ctx=ctx, weights=self._runtime.initial
        )
        self._owners |= {key: plugin for key, (plugin, _) in found.items()}
        entries = {key: seal(value, f"state {key!r}") for key, (_, value) in found.items()}
        return ServerState(0, self._runtime.initial, Payload(entries, "the server's state"))

    def play(self, state: ServerState, number: int) -> tuple[ServerState, RoundResult]:
        """Play round ``number``; return the state after it and the round's result, without a time.

        Raises:
            FedbenchError: for what a user can fix: a plugin that breaks a rule, a loss or weight
                that is not finite, too few clients left.
            Exception: a client's error under ``failures.policy: fail``; if several clients fail,
                that of the lowest client id.
        """
        hook = self._runtime.plugins.hook
        ctx = self._runtime.server_context(number)
        clients = _checked(hook.select_clients(ctx=ctx, state=state), ctx.num_clients)
        payload = self._payload(ctx, state)
        jobs = [ClientJob(number, client, self._clients.get(client, {})) for client in clients]
        arrived = _Arrived(number, len(jobs))
        self._check_cohort(arrived)
        stream = self._results(payload, jobs, arrived)
        weights = hook.aggregate(ctx=ctx, state=state, results=stream)
        if arrived.done < len(jobs):
            for _ in stream:  # an aggregator that needs no weights may not read them
                pass
        state = replace(
            state, round=number, weights=_finite(weights, f"after aggregation in round {number}")
        )
        state, metrics = self._server_update(ctx, state, arrived.reports)
        with self._runtime.watch.phase("evaluation"):
            scores = self._evaluate(ctx, state)
        up = dict(arrived.bytes_up)
        down = {key: nbytes(value) * len(jobs) for key, value in payload.items()}
        failures = tuple(arrived.failures)
        return state, RoundResult(number, clients, scores, metrics, up, down, 0.0, failures)

    def _payload(self, ctx: ServerContext, state: ServerState) -> dict[str, Value]:
        """Return what every client of the round receives, sealed."""
        found = self._runtime.plugins.collect("broadcast", ctx=ctx, state=state)
        return {key: seal(value, f"broadcast {key!r}") for key, value in found.items()}

    def _results(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob], arrived: _Arrived
    ) -> Iterator[ClientResult]:
        """Yield the clients' results in client-id order, and add each of them to ``arrived``."""
        self.digests = {}
        watch = self._runtime.watch
        answers = self._workers.run(payload, jobs)
        for answer in map(watch.arrive, each(watch, "waiting for clients", answers)):
            arrived.done += 1
            arrived.failures.extend(answer.failures)
            if isinstance(answer, ClientFailure):
                self._go_on_without(answer, arrived)
                self._progress(arrived.round, arrived.done, arrived.selected)
                continue
            if answer.state or answer.client in self._clients:
                with watch.phase("client states"):
                    self._clients.stage(answer.client, answer.state, arrived.round)
            self.digests[answer.client] = answer.digests
            arrived.bytes_up.update({key: nbytes(v) for key, v in answer.uploads.items()})
            arrived.reports.append(_report(answer))
            self._progress(arrived.round, arrived.done, arrived.selected)
            yield answer

    def _server_update(
        self, ctx: ServerContext, state: ServerState, reports: Sequence[Report]
    ) -> tuple[ServerState, dict[str, float]]:
        """Let plugins update the server one by one; return its state and the round's metrics."""
        metrics = _client_metrics(reports)
        for plugin, call in self._runtime.plugins.calls("server_update"):
            update = call(ctx=ctx, state=state, reports=reports)
            state = self._apply(state, plugin, update)
            for name, value in update.metrics.items():
                if name in metrics:
                    raise PluginError(f"plugin {plugin!r}: metric {name!r} is already reported")
                metrics[name] = float(value)
                if not math.isfinite(metrics[name]):
                    raise NonFiniteError(
                        f"plugin {plugin!r}: metric {name!r} is {metrics[name]} in round "
                        f"{state.round}"
                    )
        return state, metrics

    def _go_on_without(self, answer: ClientFailure, arrived: _Arrived) -> None:
        """Return if the policy lets the round continue; otherwise raise the client's error."""
        if answer.fatal or self._runtime.config.failures.policy == "fail":
            if isinstance(answer.error, ClientFailed):
                answer.error.add_note("(failures.policy=skip or retry lets a round continue)")
            raise answer.error
        try:
            self._check_cohort(arrived)
        except TooFewClients as error:
            raise error from answer.error

    def _check_cohort(self, arrived: _Arrived) -> None:
        """Check that enough clients are left.

        Raises:
            TooFewClients: when fewer are left than ``failures.min_clients``.
        """
        needed = self._runtime.config.failures.min_clients
        lost = [failure for failure in arrived.failures if failure.lost]
        left = arrived.selected - len(lost)
        if left < needed:
            why = "; ".join(f"client {f.client}: {f.kind}, {f.reason}" for f in lost)
            raise TooFewClients(
                f"round {arrived.round}: {left} of {arrived.selected} clients left, "
                f"failures.min_clients is {needed}" + (f" ({why})" if why else "")
            )

    def _apply(self, state: ServerState, plugin: str, update: object) -> ServerState:
        if not isinstance(update, ServerUpdate):
            raise PluginError(
                f"plugin {plugin!r}: server_update returned {type(update).__name__}; "
                "return a ServerUpdate"
            )
        entries = dict(state.entries)
        for key, value in update.entries.items():
            owner = self._owners.setdefault(key, plugin)
            if owner != plugin:
                raise PluginError(f"plugin {plugin!r} writes {key!r}, which belongs to {owner!r}")
            entries[key] = seal(value, f"state {key!r}")
        unknown = [name for name in update.weights if name not in state.weights]
        if unknown:
            raise PluginError(
                f"plugin {plugin!r}: the model has no weight {unknown[0]!r}"
                f"{did_you_mean(unknown[0], state.weights)}"
            )
        new = _finite(update.weights, f"after {plugin!r} changed it in round {state.round}")
        return ServerState(
            state.round, {**state.weights, **new}, Payload(entries, "the server's state")
        )

    def _evaluate(self, ctx: ServerContext, state: ServerState) -> dict[str, dict[str, Scores]]:
        rules = {"classifier": classifier_rule}
        for name, rule in self._runtime.plugins.collect("inference", ctx=ctx, state=state).items():
            if name in rules:
                raise PluginError(f"inference rule {name!r} is built in; choose another name")
            rules[name] = rule
        wanted = self._runtime.config.accuracy.inference
        if wanted not in rules:
            raise ConfigError(
                f"accuracy.inference: no plugin of this run provides {wanted!r}"
                f"{did_you_mean(wanted, rules)}"
            )
        outputs = self._outputs(ctx.round, state)
        try:
            return evaluate(outputs, self._runtime.data, rules, self._metrics)
        except NonFiniteError as error:
            error.add_note(f"after round {ctx.round}")
            raise

    def _outputs(
        self, number: int, state: ServerState
    ) -> Callable[[int], Iterator[Sequence[Output]]]:
        """Return a function from a domain to the outputs of each model to be tested on it.

        The outputs come in parts of the domain's test data, which `EvaluatingWorkers` compute in
        parallel.
        """
        runtime = self._runtime
        workers = self._workers
        if not isinstance(workers, EvaluatingWorkers):
            workers = InlineWorkers(runtime)
        test = workers.test
        for _, call in runtime.plugins.calls("personal_models"):

            def personal(domain: int) -> Iterator[Sequence[Output]]:
                states = (self._clients.newest(c) for c in runtime.clients_of(domain))
                kept = (found for found in states if found is not None)
                for weights in call(state=state, clients=kept):  # noqa: B023 - the only plugin
                    yield list(test(weights, runtime.chunks(number, domain)))

            return personal
        chunks = [runtime.chunks(number, domain) for domain in range(len(runtime.data.domains))]
        stream = test(state.weights, list(chain.from_iterable(chunks)))
        return lambda domain: iter([list(islice(stream, len(chunks[domain])))])


def _checked(clients: Sequence[int], num_clients: int) -> list[int]:
    chosen = sorted(int(c) for c in clients)
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or not 0 <= chosen[0] <= chosen[-1] < num_clients
    ):
        raise PluginError(
            f"select_clients must return distinct ids from 0 to {num_clients - 1}, "
            f"got {chosen[:20]}"
        )
    return chosen


def _finite(weights: Weights, when: str) -> Weights:
    for name, value in weights.items():
        if not all_finite(value):
            raise NonFiniteError(f"weight {name!r} is not finite {when}")
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


def _report(result: ClientResult) -> Report:
    """Return the part of a result that `server_update` receives: everything but the weights."""
    light = {key: value for key, value in result.uploads.items() if key != "weights"}
    uploads = Payload(light, f"the uploads of client {result.client}")
    return Report(result.client, result.examples, uploads, result.metrics)


def _client_metrics(reports: Sequence[Report]) -> dict[str, float]:
    """Average each metric over the clients that report it, weighted by examples."""
    totals: dict[str, float] = {}
    weights: Counter[str] = Counter()
    for report in reports:
        for name, value in report.metrics.items():
            totals[name] = totals.get(name, 0.0) + value * report.examples
            weights[name] += report.examples
    return {name: total / weights[name] for name, total in totals.items()}
