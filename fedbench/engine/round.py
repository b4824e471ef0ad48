"""One communication round, readable top to bottom: `Rounds.play`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from ..context import ServerContext
from ..contracts import Metric, Workers
from ..errors import NonFiniteError, PluginError
from ..failures import ClientFailed, ClientFailure, TooFewClients
from ..pictures import Picture
from ..runtime import Runtime
from ..store.client_states import ClientStates
from ..travel import broadcast, check_decoded, outgoing
from ..turns import Effort, Flight, Pace, Sent
from ..types import (
    ClientJob,
    ClientResult,
    Failure,
    Payload,
    Report,
    RoundResult,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    nbytes,
    seal,
)
from ..values import all_finite
from ..watching import each
from .scoring import Scoring
from .timing import Turns
from .weights import aliases, as_kept, checked

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
        digested: whether to compute `digests`.
    """

    def __init__(
        self,
        runtime: Runtime,
        workers: Workers,
        clients: ClientStates,
        owners: dict[str, str],
        metrics: Mapping[str, Metric],
        progress: Progress,
        digested: bool = True,
    ) -> None:
        self._runtime, self._workers, self._clients = runtime, workers, clients
        self._owners, self._progress, self._digested = owners, progress, digested
        self._scoring = Scoring(runtime, workers, clients, metrics)
        self._tied = aliases(runtime.model)
        self.digests: dict[int, Mapping[str, str]] = {}
        """Client id -> checksums of what it sent in the last round."""
        self._pictures: list[Picture] = []

    def initial_state(self) -> ServerState:
        """Return the state before round 1: the initial weights and the plugins' entries."""
        ctx = self._runtime.server_context(0)
        initial = self._runtime.initial
        found = self._runtime.plugins.collect_owned("init_server", ctx=ctx, weights=initial)
        self._owners |= {key: plugin for key, (plugin, _) in found.items()}
        entries = {key: seal(value, f"state {key!r}") for key, (_, value) in found.items()}
        return ServerState(0, initial, Payload(entries, "the server's state")).copy()

    def play(self, state: ServerState, number: int) -> tuple[ServerState, RoundResult]:
        """Play round ``number``; return the state after it and the round's result, without a time.

        Raises:
            FedbenchError: for what a user can fix: a plugin that breaks a rule, a loss or weight
                that is not finite, too few clients left.
            Exception: a client's error under ``failures.policy: fail``; if several clients fail,
                that of the lowest client id.
        """
        hook = self._runtime.plugins.hook
        ctx = replace(self._runtime.server_context(number), now=state.flight.now)
        order = _checked(hook.select_clients(ctx=ctx, state=state), ctx.num_clients)
        ctx = replace(ctx, cohort=tuple(sorted(order)))
        pace = hook.schedule(ctx=ctx, state=state)
        sent = self._broadcast(ctx, state)
        turns = self._turns(replace(ctx, sent=sent.plain), pace, order, sent, state.flight)
        ctx = replace(ctx, sent=sent.plain, cohort=turns.clients)
        arrived = _Arrived(number, len(turns))
        self._check_cohort(arrived)
        before, self._pictures = state.weights, []
        arriving = self._arriving(turns, arrived)
        stream = self._received(ctx, state, arriving, arrived)
        found = hook.aggregate(ctx=ctx, state=state, results=stream)
        for _ in chain(stream, arriving):  # what a plugin does not need it may not read
            pass
        metrics = _client_metrics(arrived.reports)
        state = replace(state, round=number, flight=turns.after)
        state = self._aggregated(state, found, metrics)
        state = self._server_update(ctx, state, before, arrived.reports, metrics)
        result = RoundResult(
            round=number,
            clients=list(ctx.cohort),
            scores={},
            metrics=metrics,
            bytes_up=dict(arrived.bytes_up),
            bytes_down={key: nbytes(v) * turns.started for key, v in sent.travels.items()},
            seconds=0.0,
            failures=tuple(arrived.failures),
            pictures=tuple(self._pictures),
            **self._times(turns),
        )
        if self._scoring.due(number, turns.now):
            result = self._scored(state, result)
        return state, result

    def _turns(
        self, ctx: ServerContext, pace: object, order: Sequence[int], sent: Sent, before: Flight
    ) -> Turns:
        """Return the turns that end in the round."""
        plugins = self._runtime.plugins
        if not isinstance(pace, Pace):
            raise PluginError(
                f"plugin {plugins.base_of('schedule')!r}: schedule returned "
                f"{type(pace).__name__}; return a Pace"
            )

        def compute(
            round: int, travels: Mapping[str, Value], clients: Sequence[int]
        ) -> Iterator[ClientResult | ClientFailure]:
            jobs = [
                ClientJob(round, client, self._clients.for_turn(client), digests=self._digested)
                for client in sorted(clients)
            ]
            watch, answers = self._runtime.watch, self._workers.run(travels, jobs)
            return map(watch.arrive, each(watch, "waiting for clients", answers))

        def clock(effort: Effort) -> float:
            seconds = plugins.hook.duration(ctx=ctx, effort=effort)
            if not (isinstance(seconds, int | float) and 0 <= seconds < math.inf):
                raise PluginError(
                    f"plugin {plugins.base_of('duration')!r}: duration returned {seconds!r} for "
                    f"client {effort.client} in round {effort.round}; return virtual seconds, "
                    "finite and not negative"
                )
            return float(seconds)

        return Turns(
            round=ctx.round,
            pace=pace,
            needed=self._runtime.config.failures.min_clients,
            order=order,
            sent=sent,
            before=before,
            compute=compute,
            clock=clock,
        )

    def _times(self, turns: Turns) -> dict[str, Any]:
        """Return what a round's result has only under a clock."""
        if not self._runtime.plugins.implements("duration"):
            return {}
        ended = tuple(sorted(turns.ended, key=lambda turn: turn.client))
        return {"time": turns.now, "turns": ended}

    def _scored(self, state: ServerState, result: RoundResult) -> RoundResult:
        """Return the round's result with scores."""
        with self._runtime.watch.phase("evaluation"):
            found = self._scoring.after(self._runtime.server_context(result.round), state)
        return replace(
            result,
            scores=found.splits["test"].domains,
            client_scores=found.splits["test"].clients,
            validation=found.splits["validation"],
            extra_scores=found.extra,
            personal_seconds=found.seconds,
            personal_bytes=found.bytes,
        )

    def personal_models(self, state: ServerState) -> Iterator[tuple[int, Weights]]:
        """Yield every client's id and the model that it would use after the last round."""
        return self._scoring.models(self._runtime.server_context(state.round), state)

    def _broadcast(self, ctx: ServerContext, state: ServerState) -> Sent:
        """Return what travels to every client that starts in the round, sealed."""
        payload = broadcast(self._runtime.plugins, ctx, state)
        calls = self._runtime.plugins.calls("send_broadcast")
        travels, plain = outgoing(calls, payload, ctx=ctx, state=state)
        return Sent(travels, Payload(plain, "the broadcast"))

    def _arriving(
        self, answers: Iterable[ClientResult | ClientFailure], arrived: _Arrived
    ) -> Iterator[ClientResult]:
        """Yield the clients' results in client-id order as they travelled; count them."""
        self.digests = {}
        watch = self._runtime.watch
        for answer in answers:
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
            self._progress(arrived.round, arrived.done, arrived.selected)
            yield answer

    def _received(
        self,
        ctx: ServerContext,
        state: ServerState,
        results: Iterator[ClientResult],
        arrived: _Arrived,
    ) -> Iterator[ClientResult]:
        """Yield the results as plugins decode and change them, and keep a report of each."""
        for plugin, call in self._runtime.plugins.calls("receive_uploads")[::-1]:
            found = call(ctx=ctx, state=state, results=results)
            if not isinstance(found, Iterator):
                raise PluginError(
                    f"plugin {plugin!r}: receive_uploads returned {type(found).__name__}; write it "
                    "with `for result in results: yield result`, or return an iterator"
                )
            results = found
        for result in results:
            check_decoded(result.uploads, f"the uploads of client {result.client}")
            arrived.reports.append(_report(result))
            yield result
        if not arrived.reports:
            raise PluginError(
                f"receive_uploads left out every client in round {arrived.round}; at least one "
                "result must be left to aggregate"
            )

    def _aggregated(
        self, state: ServerState, found: object, metrics: dict[str, float]
    ) -> ServerState:
        """Return the state with what ``aggregate`` returned."""
        update = found if isinstance(found, ServerUpdate) else ServerUpdate(weights=found)  # type: ignore[arg-type]
        plugin = self._runtime.plugins.base_of("aggregate")
        return self._apply(state, plugin, "aggregate", update, metrics)

    def _server_update(
        self,
        ctx: ServerContext,
        state: ServerState,
        before: Weights,
        reports: Sequence[Report],
        metrics: dict[str, float],
    ) -> ServerState:
        """Let plugins update the server one by one; return its state, and add to ``metrics``."""
        for plugin, call in self._runtime.plugins.calls("server_update"):
            update = call(ctx=ctx, state=state, before=before, reports=reports)
            state = self._apply(state, plugin, "server_update", update, metrics)
        return state

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

    def _apply(
        self,
        state: ServerState,
        plugin: str,
        hook: str,
        update: object,
        metrics: dict[str, float],
    ) -> ServerState:
        """Return the state with a plugin's update, and add its metrics to ``metrics``."""
        if not isinstance(update, ServerUpdate):
            raise PluginError(
                f"plugin {plugin!r}: {hook} returned {type(update).__name__}; return a ServerUpdate"
            )
        entries = dict(state.entries)
        for key, value in update.entries.items():
            owner = self._owners.setdefault(key, plugin)
            if owner != plugin:
                raise PluginError(f"plugin {plugin!r} writes {key!r}, which belongs to {owner!r}")
            entries[key] = seal(value, f"state {key!r}")
        new = self._new_weights(state, plugin, hook, update.weights)
        for name, number in update.metrics.items():
            if name in metrics:
                raise PluginError(f"plugin {plugin!r}: metric {name!r} is already reported")
            metrics[name] = float(number)
            if not math.isfinite(metrics[name]):
                raise NonFiniteError(
                    f"plugin {plugin!r}: metric {name!r} is {metrics[name]} in round {state.round}"
                )
        for picture in update.pictures:
            if picture.name in (one.name for one in self._pictures):
                raise PluginError(f"plugin {plugin!r}: picture {picture.name!r} is already drawn")
            self._pictures.append(picture)
        weights = {**state.weights, **new}
        return replace(state, weights=weights, entries=Payload(entries, "the server's state"))

    def _new_weights(self, state: ServerState, plugin: str, hook: str, weights: object) -> Weights:
        found = checked(weights, state.weights, plugin, hook)
        when = "aggregation" if hook == "aggregate" else f"{plugin!r} changed it"
        found = _finite(found, f"after {when} in round {state.round}")
        return as_kept(found, state.weights, self._tied)


def _checked(clients: Sequence[int], num_clients: int) -> list[int]:
    chosen = [int(c) for c in clients]
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or not 0 <= min(chosen) <= max(chosen) < num_clients
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
    return weights


def _report(result: ClientResult) -> Report:
    """Return the part of a result that `server_update` receives: everything but the weights."""
    light = {key: value for key, value in result.uploads.items() if key != "weights"}
    uploads = Payload(light, f"the uploads of client {result.client}")
    observed = Payload(result.observed, f"the observations of client {result.client}")
    parts = result.client, result.examples, uploads, result.metrics
    return Report(*parts, result.staleness, observed)


def _client_metrics(reports: Sequence[Report]) -> dict[str, float]:
    """Average each metric over the clients that report it, weighted by examples."""
    totals: dict[str, float] = {}
    weights: Counter[str] = Counter()
    for report in reports:
        for name, value in report.metrics.items():
            totals[name] = totals.get(name, 0.0) + value * report.examples
            weights[name] += report.examples
    return {name: total / weights[name] for name, total in totals.items()}
