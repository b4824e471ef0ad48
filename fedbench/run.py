"""One run, readable top to bottom: `Run.rounds` is the loop.

for result in Run(config).rounds():
    print(result.round, result.scores["classifier"]["accuracy"].mean)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from . import checkpoint
from . import config as configs
from .config import RunConfig
from .context import NonFiniteError, Pipeline, ServerContext
from .errors import ConfigError, PluginError, did_you_mean
from .evaluation import accuracy_text, classifier_rule, evaluate, reported
from .plugins import Registry, discover
from .runtime import Runtime, one_thread, open_device, partition_table
from .store import ClientStates, RunDirectory, default_data_root, json_ready, versions
from .types import (
    ClientJob,
    ClientResult,
    Payload,
    Report,
    RoundResult,
    Scores,
    ServerState,
    ServerUpdate,
    Weights,
    nbytes,
    seal,
    sha256,
)

Progress = Callable[[int, int, int], None]
"""Called with (round, clients done, clients in the round) after each client."""


class Run:
    """A run of one config.

    Args:
        config: a resolved `RunConfig`, or the path of a YAML file.
        directory: where to keep the run; ``None`` keeps nothing on disk. It must not exist yet.
        registry: what is installed; default `fedbench.plugins.discover`.
        data_root: where data sets look for files; default ``FEDBENCH_DATA`` or the user's cache.
        progress: called after each client.
        checkpoint_seconds: how often a checkpoint is written, at the end of a round; one is also
            written when the run is interrupted. Only with a directory.

    Raises:
        ConfigError: for a config that can't be used, or a directory that exists or can't be
            written.
    """

    def __init__(
        self,
        config: RunConfig | str | Path,
        directory: str | Path | None = None,
        *,
        registry: Registry | None = None,
        data_root: Path | None = None,
        progress: Progress | None = None,
        checkpoint_seconds: float = 60.0,
    ) -> None:
        self.registry = registry or discover()
        self.config = (
            config if isinstance(config, RunConfig) else configs.load(self.registry, config)
        )
        open_device(self.config.device)
        self.data_root = data_root or default_data_root()
        self.directory = RunDirectory.create(Path(directory), self.config) if directory else None
        self.history: list[RoundResult] = []
        self.state: ServerState | None = None
        self.checkpoint_seconds = checkpoint_seconds
        self.progress = progress or (lambda *_: None)
        folder = self.directory.path / "clients" if self.directory else None
        self._clients = ClientStates(folder)
        self._owners: dict[str, str] = {}

    @classmethod
    def resume(cls, directory: str | Path, *, registry: Registry | None = None, **more: Any) -> Run:
        """Return the unfinished run of a directory, ready to go on from its last checkpoint.

        Without a checkpoint it starts from round 1. The result is the same, to the bit, as that of
        a run that was never interrupted. ``more`` as in `Run`.

        Raises:
            ConfigError: when the directory holds no run, a finished one, or a damaged checkpoint.
        """
        path = Path(directory)
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path} holds no run (no config.yaml)")
        if (path / "result.json").is_file():
            raise ConfigError(f"{path} is finished; `fedbench show {path}` prints it")
        registry = registry or discover()
        run = cls(configs.load(registry, path / "config.yaml"), registry=registry, **more)
        run.directory = RunDirectory(path)
        done = 0
        if checkpoint.exists(path):
            restored = checkpoint.read(path, run.config.hash)
            run.state, run._owners, run._clients = restored.state, restored.owners, restored.clients
            done = restored.state.round
        else:
            run._clients = ClientStates(path / "clients")
            run._clients.restore({}, {})
        run.history = [round_from_json(data) for data in run.directory.rounds(done)]
        return run

    def rounds(self) -> Iterator[RoundResult]:
        """Run round after round and yield each one's result as it is finished.

        A run that was resumed yields the rounds that were still to do.

        Raises:
            FedbenchError: for what a user can mend: a plugin that breaks a rule, a loss that is
                not finite.
        """
        config = self.config
        with one_thread():
            runtime = self.runtime = Runtime(config, self.registry, self.data_root)
        self._metrics = {
            name: configs.build(self.registry, "metric", {"name": name, **given})
            for name, given in config.metrics.items()
        }
        lock = self.directory.lock() if self.directory else None
        workers = configs.build(self.registry, "executor", config.executor).open(runtime)
        saved_at, saved_round = time.monotonic(), self.state.round if self.state else 0
        try:
            if self.directory:
                self.directory.write("partition.json", partition_table(runtime))
            with one_thread():
                state = self.state or self._initial_state(runtime)
            for number in range(state.round + 1, config.rounds + 1):
                started = time.perf_counter()
                with one_thread():
                    # A copy: a plugin that writes into it must not change the state that is kept.
                    state, result = self._round(runtime, workers, state.copy(), number)
                result = replace(result, seconds=time.perf_counter() - started)
                if self.directory:
                    self.directory.add_round(result)
                self.history.append(result)
                self.state = state
                self._clients.commit(number)
                path = self.directory.path if self.directory else None
                for _, call in runtime.plugins.calls("round_end"):
                    call(result=result, directory=path)
                if time.monotonic() - saved_at >= self.checkpoint_seconds:
                    self._checkpoint()
                    saved_at, saved_round = time.monotonic(), number
                yield result
            if self.directory:
                self.directory.finish(self.result(), state.weights)
        except BaseException:
            if self.state and self.state.round > saved_round:
                self._checkpoint()
            raise
        finally:
            workers.close()
            self._clients.close()
            if lock:
                lock.release()

    def _checkpoint(self) -> None:
        if self.directory and self.state:
            self._clients.commit(self.state.round)
            path, key = self.directory.path, self.config.hash
            checkpoint.write(path, key, self.state, self._owners, self._clients)

    def run(self) -> dict[str, Any]:
        """Run all rounds and return `result`."""
        for _ in self.rounds():
            pass
        return self.result()

    def _context(self, runtime: Runtime, number: int) -> ServerContext:
        sizes = tuple(len(part) for part in runtime.parts)
        classes = len(runtime.data.classes)
        return ServerContext(number, self.config.rounds, classes, sizes, runtime.streams)

    def _initial_state(self, runtime: Runtime) -> ServerState:
        ctx = self._context(runtime, 0)
        found = runtime.plugins.collect_owned("init_server", ctx=ctx, weights=runtime.initial)
        self._owners = {key: plugin for key, (plugin, _) in found.items()}
        entries = {key: seal(value, f"state {key!r}") for key, (_, value) in found.items()}
        return ServerState(0, runtime.initial, Payload(entries, "the server's state"))

    def _round(
        self, runtime: Runtime, workers: Any, state: ServerState, number: int
    ) -> tuple[ServerState, RoundResult]:
        plugins, hook = runtime.plugins, runtime.plugins.hook
        ctx = self._context(runtime, number)
        clients = _checked(hook.select_clients(ctx=ctx, state=state), ctx.num_clients)
        payload = {
            key: seal(value, f"broadcast {key!r}")
            for key, value in plugins.collect("broadcast", ctx=ctx, state=state).items()
        }
        jobs = [ClientJob(number, client, self._clients.get(client, {})) for client in clients]
        reports: list[Report] = []
        up: Counter[str] = Counter()

        def results() -> Iterator[ClientResult]:
            for result in workers.run(payload, jobs):
                if result.state or result.client in self._clients:
                    self._clients.stage(result.client, result.state, number)
                up.update({key: nbytes(value) for key, value in result.uploads.items()})
                light = {k: v for k, v in result.uploads.items() if k != "weights"}
                uploads = Payload(light, f"the uploads of client {result.client}")
                reports.append(Report(result.client, result.examples, uploads, result.metrics))
                self.progress(number, len(reports), len(jobs))
                yield result

        stream = results()
        weights = hook.aggregate(ctx=ctx, state=state, results=stream)
        if len(reports) < len(jobs):
            for _ in stream:  # an aggregator that needs no weights may not read them
                pass
        state = replace(
            state, round=number, weights=_finite(weights, f"after aggregation in round {number}")
        )
        metrics = _client_metrics(reports)
        for plugin, call in plugins.calls("server_update"):
            update = call(ctx=ctx, state=state, reports=reports)
            state = self._apply(state, plugin, update)
            for name, value in update.metrics.items():
                if name in metrics:
                    raise PluginError(f"plugin {plugin!r}: metric {name!r} is reported already")
                metrics[name] = float(value)
        scores = self._evaluate(runtime, ctx, state)
        down = {key: nbytes(value) * len(jobs) for key, value in payload.items()}
        return state, RoundResult(number, clients, scores, metrics, dict(up), down, 0.0)

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

    def _evaluate(
        self, runtime: Runtime, ctx: ServerContext, state: ServerState
    ) -> dict[str, dict[str, Scores]]:
        rules = {"classifier": classifier_rule}
        for name, rule in runtime.plugins.collect("inference", ctx=ctx, state=state).items():
            if name in rules:
                raise PluginError(f"inference rule {name!r} is built in; choose another name")
            rules[name] = rule
        wanted = self.config.accuracy.inference
        if wanted not in rules:
            raise ConfigError(
                f"accuracy.inference: no plugin of this run gives {wanted!r}"
                f"{did_you_mean(wanted, rules)}"
            )
        pipeline = Pipeline(
            runtime.plugins, runtime.device, lambda name: runtime.streams.torch(name, ctx.round)
        )

        def models(domain: int) -> Iterator[Weights]:
            for _, call in runtime.plugins.calls("personal_models"):
                states = (self._clients.newest(c) for c in runtime.clients_of(domain))
                kept = (found for found in states if found is not None)
                return iter(call(state=state, clients=kept))
            return iter([state.weights])

        return evaluate(runtime.model, models, runtime.data, pipeline, rules, self._metrics)

    def accuracy(self) -> Scores:
        """The run's accuracy by its rule, over the rounds so far."""
        rule = self.config.accuracy
        scores = [r.scores[rule.inference][rule.metric] for r in self.history]
        return reported(rule, scores, self._metrics[rule.metric].higher_is_better)

    def result(self) -> dict[str, Any]:
        """Return what ``result.json`` holds, over the rounds so far; accuracies are fractions."""
        assert self.state is not None, "no round has been run"
        config, rounds, accuracy = self.config, self.history, self.accuracy()
        lines = "\n".join(canonical_round(r) for r in rounds)
        return {
            "method": config.method,
            "changes": configs.describe_changes(self.registry, config),
            "data": config.data_name,
            "model": config.model["name"],
            "seed": config.seed,
            "rounds": len(rounds),
            "accuracy": {
                "rule": accuracy_text(config.accuracy, len(rounds)),
                "metric": config.accuracy.metric,
                "inference": config.accuracy.inference,
                "mean": accuracy.mean,
                "worst": accuracy.worst,
                "std": accuracy.std,
                "domains": dict(accuracy.domains),
            },
            "bytes": {
                "up": _per_round([r.bytes_up for r in rounds]),
                "down": _per_round([r.bytes_down for r in rounds]),
            },
            "seconds": sum(r.seconds for r in rounds),
            "weights_sha256": sha256(dict(self.state.weights)),
            "metrics_sha256": hashlib.sha256(lines.encode()).hexdigest(),
            "card": {k.removeprefix("card_"): v for k, v in config.origin.items() if "card" in k},
            "config_hash": config.hash,
            "versions": versions(),
        }


def round_from_json(data: Mapping[str, Any]) -> RoundResult:
    """Return the round that a line of ``rounds.jsonl`` holds.

    Raises:
        ConfigError: when the line is no round.
    """
    try:
        scores = {
            rule: {name: Scores(**found) for name, found in metrics.items()}
            for rule, metrics in data["scores"].items()
        }
        return RoundResult(**{**data, "scores": scores})
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"rounds.jsonl: a damaged line: {error}") from error


def canonical_round(result: RoundResult) -> str:
    """Return a round as JSON without its times, the form that is hashed."""
    data = json_ready(result)
    del data["seconds"]
    return json.dumps(data, sort_keys=True)


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
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NonFiniteError(f"weight {name!r} is not finite {when}")
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


def _client_metrics(reports: Sequence[Report]) -> dict[str, float]:
    """Average each metric over the clients that report it, weighted by examples."""
    totals: dict[str, float] = {}
    weights: Counter[str] = Counter()
    for report in reports:
        for name, value in report.metrics.items():
            totals[name] = totals.get(name, 0.0) + value * report.examples
            weights[name] += report.examples
    return {name: total / weights[name] for name, total in totals.items()}


def _per_round(rounds: Sequence[Mapping[str, int]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for one in rounds:
        total.update(one)
    return {key: n / len(rounds) for key, n in total.items()}
