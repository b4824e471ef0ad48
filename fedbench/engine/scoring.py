"""What is scored after a round: the global model or the clients' own, on domains and on clients.

`Scoring.after` is readable top to bottom.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import count, islice

from ..context import ServerContext
from ..contracts import EvaluatingWorkers, Metric, Workers
from ..errors import ConfigError, NonFiniteError, PluginError, did_you_mean
from ..executors.inline import InlineWorkers
from ..failures import ClientFailure
from ..runtime import Runtime
from ..splits import SPLITS
from ..store.client_states import ClientStates
from ..travel import broadcast, outgoing
from ..types import (
    Chunk,
    ClientJob,
    ClientResult,
    ClientScores,
    Output,
    Score,
    Scores,
    ServerState,
    SplitScores,
    Value,
    Weights,
    nbytes,
)
from .evaluation import (
    Found,
    Rules,
    by_client,
    by_domain,
    classifier_rule,
    out_of_time,
    score,
    whose,
)


class Scored:
    """What `Scoring.after` returns.

    Attributes:
        splits: split -> scores.
        extra: inference rule -> metric -> extra test set -> value.
        seconds: wall-clock time of making and scoring the clients' own models.
        bytes: what all clients together would receive for that, by key.
    """

    def __init__(self) -> None:
        self.splits: dict[str, SplitScores] = {split: SplitScores() for split in SPLITS}
        self.extra: dict[str, dict[str, dict[str, Score]]] = {}
        self.seconds = 0.0
        self.bytes: dict[str, int] = {}


class Scoring:
    """Scores the model, or the models, after a round.

    Args:
        runtime: the run's plugins, data and model.
        workers: where models run.
        clients: what the clients keep.
        metrics: metrics by name.
    """

    def __init__(
        self,
        runtime: Runtime,
        workers: Workers,
        clients: ClientStates,
        metrics: Mapping[str, Metric],
    ) -> None:
        self._runtime, self._workers, self._clients = runtime, workers, clients
        self._metrics = metrics
        self._makes_models = bool(runtime.plugins.calls("personalize"))

    def due(self, number: int, now: float) -> bool:
        """Return whether round ``number``, which ends at virtual time ``now``, is scored."""
        config = self._runtime.config
        last = number == config.rounds or out_of_time(config, now)
        return number % config.evaluate_every == 0 or last

    def after(self, ctx: ServerContext, state: ServerState) -> Scored:
        """Score the state after a round.

        Raises:
            ConfigError: for an inference rule that no plugin provides.
            NonFiniteError: for a metric that is NaN or infinite.
            Exception: what ``personalize`` raises for a client; with several, the lowest id's.
        """
        rules = self._rules(ctx, state)
        domains = self._domains(ctx.round)
        own = self._own(ctx.round)
        users = self._users(domains)
        found: dict[tuple[str, int], list[Found]] = {place: [] for place in domains}
        clients: dict[str, dict[int, Found]] = {split: {} for split in SPLITS}
        scored = Scored()
        try:
            rest = {place: part for place, part in domains.items() if not users[place]}
            rest |= {("extra", n): part for n, part in enumerate(self._extra(ctx.round))}
            for place, one in self._global_scores(state, rest, rules):
                found.setdefault(place, []).append(one)
            pieces = {
                client: [*(domains[p] for p in domains if client in users[p]), *own[client]]
                for client in self._everyone()
            }
            started = time.perf_counter()
            for client, chunk, one in self._personal_scores(ctx, state, pieces, rules, scored):
                if chunk.client is None:
                    found[chunk.split, chunk.domain].append(one)
                else:
                    clients[chunk.split][client] = one
            scored.seconds = time.perf_counter() - started if any(pieces.values()) else 0.0
        except NonFiniteError as error:
            error.add_note(f"after round {ctx.round}")
            raise
        for split in SPLITS:
            scored.splits[split] = SplitScores(
                self._over_domains(split, found, rules),
                self._over_clients(split, clients[split], rules),
            )
        scored.extra = self._over_extra(found, rules)
        return scored

    def models(self, ctx: ServerContext, state: ServerState) -> Iterator[tuple[int, Weights]]:
        """Yield every client's id and its own model, one at a time."""
        pieces: dict[int, list[list[Chunk]]] = {client: [] for client in self._everyone()}
        for answer in self._answers(ctx, state, pieces, Scored(), keep=True):
            yield answer.client, answer.uploads.weights()

    def _everyone(self) -> range:
        return range(len(self._runtime.parts))

    def _rules(self, ctx: ServerContext, state: ServerState) -> Rules:
        """Return the inference rules by name, the classifier's first."""
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
        return rules

    def _domains(self, number: int) -> dict[tuple[str, int], list[Chunk]]:
        """Return (split, domain) -> its parts, for every domain that has data of the split."""
        runtime = self._runtime
        found = {
            (split, domain): runtime.chunks(number, domain, split)
            for split in SPLITS
            for domain in range(len(runtime.data.domains))
        }
        return {place: part for place, part in found.items() if part}

    def _extra(self, number: int) -> list[list[Chunk]]:
        """Return the parts of each extra test set."""
        return [
            self._runtime.chunks(number, n, "extra") for n in range(len(self._runtime.data.extra))
        ]

    def _own(self, number: int) -> dict[int, list[list[Chunk]]]:
        """Return client -> the parts of what it holds out, split by split."""
        runtime = self._runtime
        having = {split: set(runtime.held.clients(split)) for split in SPLITS}
        return {
            client: [
                runtime.chunks(number, 0, split, client)
                for split in SPLITS
                if client in having[split]
            ]
            for client in self._everyone()
        }

    def _users(self, domains: Mapping[tuple[str, int], object]) -> dict[tuple[str, int], set[int]]:
        """Return whose own models are scored on each domain; none means the global model."""
        rule = self._runtime.config.accuracy
        if whose(rule, "domains", self._makes_models) == "global":
            return {place: set() for place in domains}
        return {place: set(self._runtime.clients_of(place[1])) for place in domains}

    def _global_scores(
        self, state: ServerState, pieces: Mapping[tuple[str, int], list[Chunk]], rules: Rules
    ) -> Iterator[tuple[tuple[str, int], Found]]:
        """Yield each place of ``pieces`` with the global model's scores there."""
        workers = self._workers
        if not isinstance(workers, EvaluatingWorkers):
            workers = InlineWorkers(self._runtime)
        stream = workers.test(state.weights, [chunk for part in pieces.values() for chunk in part])
        for place, part in pieces.items():
            yield place, self._score([*islice(stream, len(part))], part[0], rules)

    def _personal_scores(
        self,
        ctx: ServerContext,
        state: ServerState,
        pieces: Mapping[int, list[list[Chunk]]],
        rules: Rules,
        scored: Scored,
    ) -> Iterator[tuple[int, Chunk, Found]]:
        """Yield, for each client and each of its pieces, the scores of the client's own model."""
        wanted = {client: parts for client, parts in pieces.items() if parts}
        for answer in self._answers(ctx, state, wanted, scored):
            outputs = (Output(**answer.uploads.weights(str(n))) for n in count())
            for part in wanted[answer.client]:
                one = self._score([*islice(outputs, len(part))], part[0], rules)
                yield answer.client, part[0], one

    def _answers(
        self,
        ctx: ServerContext,
        state: ServerState,
        pieces: Mapping[int, list[list[Chunk]]],
        scored: Scored,
        keep: bool = False,
    ) -> Iterator[ClientResult]:
        """Run clients' ``personalize`` and yield what comes of it, in client-id order."""
        if not pieces:
            return
        payload: dict[str, Value] = {"weights": state.weights}
        if self._makes_models:
            sent = broadcast(self._runtime.plugins, ctx, state)
            calls = self._runtime.plugins.calls("send_broadcast")
            travels, _ = outgoing(calls, sent, ctx=ctx, state=state)
            scored.bytes = {key: nbytes(value) * len(pieces) for key, value in travels.items()}
            payload |= sent
        jobs = [
            ClientJob(
                ctx.round,
                client,
                self._clients.newest(client) or {},
                tuple(chunk for part in parts for chunk in part),
                keep,
            )
            for client, parts in pieces.items()
        ]
        for answer in map(self._runtime.watch.arrive, self._workers.run(payload, jobs)):
            if isinstance(answer, ClientFailure):
                raise answer.error
            yield answer

    def _score(self, outputs: list[Output], first: Chunk, rules: Rules) -> Found:
        runtime = self._runtime
        place = first.split, first.domain, first.client
        examples, members = runtime.held.scored(runtime.data, *place)
        names = [*runtime.data.extra] if first.split == "extra" else runtime.data.domains
        whose = names[first.domain] if first.client is None else f"client {first.client}"
        where = f"the {first.split} data of {whose}"
        return score(outputs, examples.labels[members], rules, self._metrics, where)

    def _over_domains(
        self, split: str, found: Mapping[tuple[str, int], list[Found]], rules: Rules
    ) -> dict[str, dict[str, Scores]]:
        names = self._runtime.data.domains
        here = {names[domain]: each for (s, domain), each in found.items() if s == split}
        return by_domain(here, rules, self._metrics) if here else {}

    def _over_extra(
        self, found: Mapping[tuple[str, int], list[Found]], rules: Rules
    ) -> dict[str, dict[str, dict[str, Score]]]:
        """Return inference rule -> metric -> extra test set -> value; empty without such sets."""
        sets = {name: found["extra", n][0] for n, name in enumerate(self._runtime.data.extra)}
        return {
            rule: {m: {name: one[rule, m] for name, one in sets.items()} for m in self._metrics}
            for rule in (rules if sets else ())
        }

    def _over_clients(
        self, split: str, found: Mapping[int, Found], rules: Rules
    ) -> dict[str, dict[str, ClientScores]]:
        if not found:
            return {}
        held = self._runtime.held.held[split]
        sizes = {client: len(held[client]) for client in found}
        return by_client(found, sizes, rules, self._metrics)
