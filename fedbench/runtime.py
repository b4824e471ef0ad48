"""What a config describes, built in one process: plugins, data, partition, model, client turns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from . import loading
from .ambient import settled
from .config.construct import build, build_plugins
from .config.model import RunConfig
from .context import ClientContext, ServerContext
from .device import keep_freed_memory, open_device
from .errors import ConfigError, PluginError
from .failures import ClientFailure, ends_the_run, failure
from .model import Loader, checked, for_images
from .pipeline import Pipeline, eval_batch
from .plugins.hooks import RunPlugins
from .plugins.registry import Registry
from .random import Streams
from .splits import hold_out_all
from .store import fingerprint
from .store.contents import Partition
from .training import Meter
from .types import (
    BF16,
    Chunk,
    ClientJob,
    ClientResult,
    Dataset,
    Empty,
    Examples,
    Failure,
    Model,
    Output,
    Payload,
    Received,
    Value,
    Weights,
    forward,
    seal,
)
from .watching import UNWATCHED, Watch


class Runtime:
    """What a config describes, built in one process: plugins, data, partition, one reused model.

    Workers on this machine are forked with it; on a cluster's nodes it is built again from the
    config, around data that is already there. No plugin object is pickled.

    Args:
        config: the resolved config.
        registry: what is installed.
        data_root: where data sets look for files.
        placed: the prepared data and the partition of another `Runtime` of this config, used
            instead of loading and partitioning again.
        watch: what observes the run's hook calls, phases and turns.

    Raises:
        ConfigError: when the parts do not fit together, for example data that the model cannot
            take.
        PluginError: when the model has no ``nn.Linear`` named ``classifier``.
    """

    def __init__(
        self,
        config: RunConfig,
        registry: Registry,
        data_root: Path,
        placed: tuple[Dataset, list[Tensor]] | None = None,
        watch: Watch = UNWATCHED,
    ) -> None:
        self.config, self.registry, self.watch = config, registry, watch
        self.streams = Streams(config.seed)
        self.device = open_device(config.device, config.precision)
        self.plugins: RunPlugins = build_plugins(registry, config, watch)
        self.depends: dict[str, str] = {}
        """The fingerprint of the data as loaded and of the partition; empty around placed data."""
        if placed:
            self.data, self.parts = placed
        else:
            self.data = self._load(data_root)
            self.parts = self._partition()
            self.depends[fingerprint.PARTITION] = fingerprint.of_partition(self.parts)
        self.held = hold_out_all(self.data, self.parts, config.clients, self.streams)
        self._sizes = tuple(len(part) for part in self.held.train)
        keep_freed_memory()  # only now, so that memory used for loading goes back to the system
        self.model, self.initial = self._model()
        self._loader = Loader(self.model)
        self._check_features()
        self._trainable = [p.requires_grad for p in self.model.parameters()]

    def client_data(self, client: int) -> Examples:
        """Return what a client trains on, with the plugins' changes.

        Raises:
            PluginError: when a plugin changes the number of examples.
        """
        part = self.held.train[client]
        data = self.data.train[part]
        for name, call in self.plugins.calls("client_data"):
            rng = self.streams.numpy(f"client_data/{name}", client=client)
            data = call(
                data=data,
                client=client,
                num_clients=len(self.parts),
                num_classes=len(self.data.classes),
                rng=rng,
                streams=self.streams,
            )
            if len(data) != len(part):
                raise PluginError(f"plugin {name!r}: client_data changed the number of examples")
        return data

    def probe(self, n: int) -> Examples:
        """Return ``n`` random training examples of all clients (or all), always the same ones."""
        return self.data.train[self._shuffled[:n]]

    @cached_property
    def _shuffled(self) -> Tensor:
        """The positions of all clients' training examples in ``data.train``, in random order."""
        everyone = torch.cat(list(self.held.train))
        return everyone[torch.from_numpy(self.streams.numpy("probe").permutation(len(everyone)))]

    def clients_of(self, domain: int) -> list[int]:
        """Return the ids of the clients that hold training data of a domain, given by its index."""
        domains = self.data.train.domains
        return [c for c, part in enumerate(self.parts) if bool((domains[part] == domain).any())]

    def _load(self, data_root: Path) -> Dataset:
        loaded = loading.load(self.registry, self.config.data, data_root)
        data, self.depends[fingerprint.DATA] = loaded.data, loaded.digest
        for name, call in self.plugins.calls("prepare_data"):
            data = call(data=data, rng=self.streams.numpy(f"data/{name}"))
        empty = [name for name, examples in data.extra.items() if not len(examples)]
        if empty:
            raise ConfigError(f"the extra test set {empty[0]!r} has no examples")
        return data

    def _partition(self) -> list[Tensor]:
        rng = self.streams.numpy("partition")
        parts = [
            torch.as_tensor(part, dtype=torch.int64)
            for part in self.plugins.hook.partition(data=self.data, rng=rng)
        ]
        if not parts:
            raise ConfigError("the partition has no clients")
        n = len(self.data.train)
        for client, part in enumerate(parts):
            if not len(part):
                raise ConfigError(f"the partition leaves client {client} without examples")
            if int(part.min()) < 0 or int(part.max()) >= n:
                raise ConfigError(
                    f"the partition gives client {client} an index outside 0..{n - 1}"
                )
        return parts

    def _model(self) -> tuple[nn.Module, Weights]:
        choice = build(self.registry, "model", self.config.model)
        shape = tuple(self.data.train.inputs.shape[1:])
        with self.streams.scope("model"):
            built = choice.build(shape, len(self.data.classes))
        model = checked(self.config.model["name"], built, len(self.data.classes)).to(self.device)
        if len(shape) == 3:
            model = for_images(model)
        setattr(model, BF16, self.config.precision == "bf16")
        initial = seal(model.state_dict(), "initial weights")
        assert isinstance(initial, Mapping)
        return model, initial

    def _check_features(self) -> None:
        """Run the model on one example, so that what does not fit is known before round 1.

        Raises:
            PluginError: for features that the model's classifier cannot take.
            Exception: what the model raises, with a note that says where.
        """
        model, inputs = cast(Model, self.model), self.example()
        name, training = self.config.model["name"], self.model.training
        self.model.eval()
        try:
            with settled(), self.streams.scope("example"), torch.no_grad():
                found = model.features(inputs)
        except Exception as error:
            error.add_note(
                f"in features(inputs) of model {name!r}, with one example: inputs of shape "
                f"{tuple(inputs.shape)}"
            )
            raise
        finally:
            self.model.train(training)
        wanted = (1, model.classifier.in_features)
        if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
            shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
            raise PluginError(
                f"model {name!r}: for one example, inputs of shape {tuple(inputs.shape)}, "
                f"features(inputs) must return a tensor of shape {wanted}, (B, d) with d the "
                f"in_features of 'classifier'; it returned {shape or type(found).__name__}"
            )

    def example(self) -> Tensor:
        """Return one training example as a model gets it in tests, (1, ...) on the device."""
        pipeline = Pipeline(
            self.plugins, self.device, lambda name: self.streams.torch(f"{name}/example")
        )
        with settled(), self.streams.scope("example"):
            return pipeline(self.data.train[torch.tensor([0])].inputs, False)

    def server_context(self, round: int) -> ServerContext:
        """Return the run as the server's hooks see it in ``round``."""
        data, plugins = self.data, self.plugins
        return ServerContext(
            round,
            self.config.rounds,
            len(data.classes),
            self._sizes,
            self.streams,
            self.model,
            classes=data.classes,
            domains=data.domains,
            anchor_keys=plugins.anchors,
        )

    def run_client(
        self, job: ClientJob, payload: Mapping[str, Value], empty: Empty | None = None
    ) -> ClientResult | ClientFailure:
        """Run one client's turn: a pure function of the config, the job and the payload.

        An exception becomes a `ClientFailure`, after as many attempts as ``failures`` allows. All
        attempts run here, one after the other, so the answer keeps its place among the others, and
        a turn that succeeds late gives the same bits as one that succeeds immediately.

        Args:
            job: whose turn it is, with what the client kept.
            payload: what the server sent.
            empty: allocates the memory that uploads and the client's state are copied to.
        """
        return self.watch.turn(job, lambda: self._attempts(job, payload, empty))

    def _attempts(
        self, job: ClientJob, payload: Mapping[str, Value], empty: Empty | None
    ) -> ClientResult | ClientFailure:
        started = time.perf_counter()
        rule = self.config.failures
        attempts = rule.attempts if rule.policy == "retry" else 1
        failures: list[Failure] = []
        meter = Meter()
        for attempt in range(1, attempts + 1):
            try:
                result = self._turn(job, payload, attempt, empty, meter)
            except Exception as error:
                where = f"in round {job.round}, client {job.client}"
                if where not in str(error):
                    error.add_note(where)
                lost = attempt == attempts or ends_the_run(error)
                failures.append(failure(job.client, attempt, error, lost))
                if lost:
                    seconds = time.perf_counter() - started
                    return ClientFailure(job.client, failures, error, seconds, meter.examples)
            else:
                seconds = time.perf_counter() - started
                failures = [*failures, *result.failures]
                trained = meter.examples
                return replace(result, seconds=seconds, failures=tuple(failures), trained=trained)
        raise AssertionError("there is at least one attempt")

    def _turn(
        self,
        job: ClientJob,
        payload: Mapping[str, Value],
        attempt: int,
        empty: Empty | None,
        meter: Meter,
    ) -> ClientResult:
        with settled(), self.streams.scope("client", job.round, job.client):
            for parameter, trainable in zip(self.model.parameters(), self._trainable, strict=True):
                parameter.grad = None
                parameter.requires_grad_(trainable)
            with self.watch.phase("data"):
                data = self.client_data(job.client)
            ctx = ClientContext(
                job=job,
                rounds=self.config.rounds,
                num_classes=len(self.data.classes),
                device=self.device,
                model=self.model,
                payload=Received(payload, self.device),
                data=data,
                plugins=self.plugins,
                streams=self.streams,
                num_clients=len(self.parts),
                attempt=attempt,
                empty=empty,
                watch=self.watch,
                initial=self.initial,
                meter=meter,
                probe=self.probe,
            )
            if job.scored is None:
                ctx.receive()
            # Loading copies, so the client's own copy is made only if a plugin reads it.
            received: Any = ctx.payload.raw().get("weights", {})
            self._loader.load({**self.initial, **received})
            self.model.train()
            if job.scored is not None:
                return self._personal(ctx, job)
            self.plugins.hook.client_update(ctx=ctx)
            with self.watch.phase("uploads"):
                return ctx.result(0.0)

    def _personal(self, ctx: ClientContext, job: ClientJob) -> ClientResult:
        """Make the model that the client would use, and run it on the data to be scored.

        Returns:
            a result whose uploads are, by the position of each chunk, features and logits, and
            ``weights`` if the job says so; none of it counts as bytes.
        """
        for _, call in self.plugins.calls("personalize"):
            call(ctx=ctx)
        found: dict[str, Value] = {}
        for position, chunk in enumerate(job.scored or ()):
            output = self._output(chunk)
            found[str(position)] = {"features": output.features, "logits": output.logits}
        if job.keep:
            found["weights"] = seal(self.model.state_dict())
        uploads = Payload(found, f"the outputs of client {job.client}")
        return ClientResult(job.client, len(ctx.data), uploads, {}, {}, 0.0)

    def chunks(
        self, round: int, domain: int, split: str = "test", client: int | None = None
    ) -> list[Chunk]:
        """Return the parts of the data of a domain or client, each for one forward pass."""
        size = eval_batch(self.device)
        n = len(self.held.scored(self.data, split, domain, client)[1])
        return [
            Chunk(round, domain, start, min(start + size, n), split, client)
            for start in range(0, n, size)
        ]

    def run_chunk(self, chunk: Chunk, weights: Weights) -> Output:
        """Run a model on a part of the scored data: a pure function, like `run_client`.

        Returns:
            the `Output` for its examples, on the CPU.
        """
        with settled():
            self._loader.load(weights)
            return self._output(chunk)

    def _output(self, chunk: Chunk) -> Output:
        """Run the model as it is on a part of the scored data, in evaluation mode."""
        one = chunk.domain if chunk.client is None else f"client/{chunk.client}"
        where = f"{chunk.split}/{one}/{chunk.start}"
        place = chunk.split, chunk.domain, chunk.client
        examples, members = self.held.scored(self.data, *place)
        inputs = examples.inputs[members[chunk.start : chunk.stop]]
        pipeline = Pipeline(
            self.plugins,
            self.device,
            lambda name: self.streams.torch(f"{name}/{where}", chunk.round),
        )
        with self.streams.scope(where, chunk.round), torch.no_grad():
            self.model.eval()
            output = forward(self.model, pipeline(inputs, False))
        return Output(output.features.cpu(), output.logits.cpu())


def partition_table(runtime: Runtime) -> Partition:
    """Return how many examples each client holds, by domain and class."""
    data, counts = runtime.data, {}
    for client, part in enumerate(runtime.parts):
        labels, domains = data.train.labels[part], data.train.domains[part]
        counts[client] = {
            data.domains[int(d)]: labels[domains == d]
            .bincount(minlength=len(data.classes))
            .tolist()
            for d in domains.unique()
        }
    return Partition(list(data.classes), list(data.domains), counts)
