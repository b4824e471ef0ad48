"""The context that hooks get as ``ctx``: the run as the server sees it, or one client's turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .anchors import class_anchors
from .client_state import ClientState
from .errors import NonFiniteError, PluginError
from .loss_terms import LossTerms
from .pipeline import Pipeline, batch_sizes, eval_batch, evaluated, send, shuffled
from .random import Streams
from .server_context import ServerContext
from .training import Meter, Only, Training, frozen
from .travel import incoming, uploaded
from .types import (
    Batch,
    ClientJob,
    ClientResult,
    Empty,
    Examples,
    Failure,
    Output,
    Payload,
    PerClass,
    Received,
    Value,
    Weights,
    forward,
    seal,
)
from .values import checksums
from .watching import UNWATCHED, Watch, each

if TYPE_CHECKING:
    from .plugins.hooks import RunPlugins


class ClientContext:
    """One client's turn in one round, as the client's hooks see it.

    Attributes:
        round, rounds: the current round, from 1, and how many rounds the run has.
        client: the client's id.
        attempt: 1, or more when a failed turn is tried again (``failures.policy: retry``). Random
            streams do not depend on it unless their purpose names it.
        num_clients: how many clients there are, selected or not.
        num_classes: C.
        streams: the run's random streams, for draws that all share; this client's are `rng`'s.
        device: where the model is.
        model: the model, loaded with the received weights; train it in place.
        payload: what the client received, by key; do not write to its tensors.
        sent: what the server had sent, by key, decoded but not changed by ``receive_broadcast`` in
            any other way: what an update is the difference from.
        state: what this client kept, and keeps: values are copied when assigned, see `ClientState`.
        scratch: values that plugins share within this turn; discarded afterwards.
        data: the client's raw examples, on the CPU.
        initial: the run's initial weights, on the CPU; do not write to them.
        meter: counts the examples that the turn trains on.
        probe: returns the first n of the training examples of all clients in a random order that
            is the same in every turn; for diagnostics, as no client of a real federation has them.
    """

    def __init__(
        self,
        *,
        job: ClientJob,
        rounds: int,
        num_classes: int,
        device: torch.device,
        model: nn.Module,
        payload: Received,
        data: Examples,
        plugins: RunPlugins,
        streams: Streams,
        num_clients: int,
        attempt: int = 1,
        empty: Empty | None = None,
        watch: Watch = UNWATCHED,
        initial: Weights = MappingProxyType({}),
        meter: Meter | None = None,
        probe: Callable[[int], Examples] | None = None,
    ) -> None:
        self.attempt, self._watch, self._empty, self.initial = attempt, watch, empty, initial
        self.meter = meter or Meter()
        self.round, self.client, self.rounds = job.round, job.client, rounds
        self.num_clients, self.num_classes = num_clients, num_classes
        self.device, self.model = device, model
        self._received = payload
        self.payload: Payload = payload
        self.sent: Payload = payload
        self.data, self._job = data, job
        self._state = ClientState(job.state, self.where, empty, watch)
        self.scratch: dict[str, Any] = {}
        self._plugins, self.streams = plugins, streams
        self._pipeline = Pipeline(plugins, device, self.rng)
        self._training: Training | None = None
        self._recording = job.scored is None
        self._losses, self._after = map(plugins.calls, ("local_loss", "after_backward"))
        self._uploads: dict[str, Value] = {}
        self._observed: dict[str, Value] = {}
        self.probe = probe or (lambda n: data[torch.arange(min(n, len(data)))])
        self._metrics: dict[str, float] = {}
        self._terms = LossTerms(self.where, lazy=device.type != "cpu")
        self._failures: list[Failure] = []

    @property
    def state(self) -> ClientState:
        """What this client keeps, by key; see the class's docstring."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Value]) -> None:
        if values is not self._state:  # the same after ``ctx.state |= values``
            self._state.replace(values)

    def rng(self, purpose: str) -> torch.Generator:
        """Return a fresh generator for this turn; begin ``purpose`` with your plugin's name."""
        return self.streams.torch(purpose, self.round, self.client)

    @property
    def where(self) -> str:
        """The place for error messages: ``round 3, client 7``."""
        return f"round {self.round}, client {self.client}"

    def prepare(self, inputs: Tensor, train: bool = False) -> Tensor:
        """Return the model inputs for raw inputs (B, ...): on the device and transformed."""
        with self.phase("data"):
            return self._pipeline(inputs, train)

    def receive(self) -> None:
        """Let plugins change what was received; called once, before the model is loaded."""
        calls = self._plugins.calls("receive_broadcast")[::-1]
        self.payload, self.sent = incoming(calls, self._received, ctx=self)

    def batches(
        self,
        batch_size: int,
        epochs: int,
        drop_last: bool = False,
        stream: str = "",
        *,
        steps: int | None = None,
        stretch: bool = False,
    ) -> Iterator[Batch]:
        """Yield shuffled, transformed batches in ``epochs`` passes over the client's data.

        The order depends only on seed, round, client and ``stream``. With ``drop_last``, a last
        batch that is smaller is left out unless it is the only one. ``steps`` batches are the most
        that are yielded, or with ``stretch`` exactly how many, whatever ``epochs`` is.
        """
        own = f"/{stream}" if stream else ""
        order = self.streams.numpy(f"batches{own}", self.round, self.client)
        pipeline = Pipeline(self._plugins, self.device, lambda name: self.rng(f"{name}{own}"))
        sizes = batch_sizes(len(self.data), batch_size, drop_last)
        total = epochs * len(sizes)
        if steps is not None:
            total = steps if stretch else min(total, steps)
        positions = shuffled(order, len(self.data), sizes, total)
        return each(self._watch, "data", self._batches(positions, pipeline))

    def _batches(
        self, positions: Iterator[tuple[Tensor, int, int]], pipeline: Pipeline
    ) -> Iterator[Batch]:
        for index, epoch, epochs in positions:
            chosen = self.data[index]
            with self.phase("data"):
                inputs = pipeline(chosen.inputs, True)
            yield Batch(inputs, send(chosen.labels, self.device), epoch, epochs)

    def train(
        self,
        model: nn.Module | None = None,
        *,
        epochs: int | Callable[[int], int] | None = None,
        steps: int | None = None,
        loss: Callable[[Batch], Tensor] | None = None,
        only: Only | None = None,
        stream: str = "",
        record: bool | None = None,
    ) -> Training:
        """Run the trainer over the client's data once.

        Core calls it once per turn; a plugin may call it again, or implement ``client_update``.

        Args:
            model: what to train, in place; default ``ctx.model``. It is ``ctx.model`` meanwhile.
            epochs: passes over the data, or a function of the trainer's number; at least one.
            steps: exactly so many batches instead.
            loss: returns the loss of a batch, a scalar; default `loss`, the sum of all plugins'
                terms. To add to it: ``lambda batch: ctx.loss(batch) + more``.
            only: which parameters and buffers to change, by name; the others keep their bits.
            stream: names other random batches than the turn's; begin it with your plugin's name.
            record: whether its loss terms are reported and plugins see its gradients; default for
                passes on the turn's own model, not for other models, nor in ``personalize``.

        Returns:
            what was done: learning rate, momentum, steps.
        """
        record = self._recording and model is None if record is None else record
        outer, own, recording = self._training, self.model, self._recording
        self.model = own if model is None else model
        self.model.train()
        total = loss or self.loss
        work = Training(
            self, total, only=only, epochs=epochs, steps=steps, stream=stream, record=record
        )
        self._training, self._recording = work, record
        place = f"train/{stream}", self.round, self.client
        try:
            with self.streams.scope(*place), frozen(self.model, only):
                self._plugins.hook.train(ctx=self, work=work)
        finally:
            self.model, self._recording = own, recording
            self._training = work if record else outer
            work.end()
        return work

    @property
    def training(self) -> Training:
        """The pass that is under way, or else the last one that was recorded.

        Raises:
            PluginError: when there is none.
        """
        if self._training is None:
            raise PluginError(f"nothing has been trained yet in {self.where}")
        return self._training

    def loss(
        self, batch: Batch, model: nn.Module | None = None, record: bool | None = None
    ) -> Tensor:
        """Run the model and return the sum of all plugins' loss terms, in YAML order.

        Args:
            batch: the batch.
            model: what to run; default ``ctx.model``. It is ``ctx.model`` meanwhile.
            record: whether the terms are reported and what plugins put into the scratch is kept;
                default as the pass that is under way.

        Raises:
            PluginError: for a term that is not a floating-point scalar, or when two plugins return
                a term of the same name.
            NonFiniteError: for a NaN or infinite term, naming plugin, term, round and client.
        """
        record = self._recording if record is None else record
        own, scratch = self.model, self.scratch
        self.model = own if model is None else model
        self.scratch = scratch if record else dict(scratch)
        try:
            return self._total(batch, record)
        finally:
            self.model, self.scratch = own, scratch

    def _total(self, batch: Batch, record: bool) -> Tensor:
        with self.phase("forward"):
            output = forward(self.model, batch.inputs)
        calls = (
            (plugin, partial(call, ctx=self, batch=batch, output=output))
            for plugin, call in self._losses
        )
        return self._terms.total(calls, len(batch.labels), record)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that names a step of the training for ``fedbench profile``.

        Trainers write ``with ctx.phase("optimiser"): optimizer.step()``; the passes over the model
        are phases already. What a plugin does outside any phase is listed under the plugin's name.
        """
        return self._watch.phase(name)

    def after_backward(self, batch: Batch) -> None:
        """Call the plugins' ``after_backward``; `Training.backward` does so."""
        for _, call in self._after:
            call(ctx=self, batch=batch)

    @torch.no_grad()
    def embed(self, index: Tensor | None = None) -> tuple[Output, Tensor]:
        """Run the current model on the client's examples in evaluation mode.

        Args:
            index: (n,) int64, which examples; default all.

        Returns:
            the `Output` with features (n, d) and logits (n, C), and the labels (n,), on the device.
        """
        data = self.data if index is None else self.data[index]
        chunks = data.inputs.split(eval_batch(self.device))
        with self.phase("forward"):
            output = evaluated(self.model, map(self.prepare, chunks))
        return output, data.labels.to(self.device)

    @torch.no_grad()
    def examine(self, data: Examples, stream: str) -> Output:
        """Run the current model on any examples, as `embed` does, without changing other draws.

        Args:
            data: the examples.
            stream: names the random numbers of the transforms; begin it with your plugin's name.
        """
        pipeline = Pipeline(self._plugins, self.device, lambda name: self.rng(f"{name}/{stream}"))
        chunks = data.inputs.split(eval_batch(self.device))
        with self.streams.scope(f"examine/{stream}", self.round, self.client):
            return evaluated(self.model, (pipeline(chunk, False) for chunk in chunks))

    @property
    def anchors(self) -> PerClass | None:
        """The class anchors that the client received, see `class_anchors`; ``None`` without any."""
        return class_anchors(self.payload, self._plugins.anchors)

    @property
    def uploads(self) -> Mapping[str, Value]:
        """What this turn has uploaded so far, by key; read-only."""
        return MappingProxyType(self._uploads)

    def upload(self, key: str, value: Value) -> None:
        """Send ``value`` to the server under ``key``: a sealed copy, its bytes counted.

        Raises:
            PluginError: when the key was already used in this turn, when ``key`` is not text or
                ``value`` has the wrong type, or in ``personalize``.
        """
        if self._job.scored is not None:
            raise PluginError(f"upload of {key!r} in {self.where}: nothing travels in personalize")
        if not isinstance(key, str):
            raise PluginError(f"a key of an upload must be text, got {key!r}")
        if key in self._uploads:
            raise PluginError(f"two plugins upload {key!r} in {self.where}")
        with self.phase("uploads"):
            self._uploads[key] = seal(value, f"upload {key!r}", self._empty)

    def observe(self, key: str, value: Value) -> None:
        """Hand a value to the server's ``Report.observed`` that would not be sent in reality.

        It is for diagnostics: no bytes are counted, no other plugin changes it, and nothing that a
        run trains with may depend on it.

        Raises:
            PluginError: when the key was already used in this turn.
        """
        if key in self._observed:
            raise PluginError(f"two plugins observe {key!r} in {self.where}")
        self._observed[key] = seal(value, f"observation {key!r}", self._empty)

    def metric(self, name: str, value: float | Tensor) -> None:
        """Report a number; the round's value is the mean over clients, weighted by examples.

        Raises:
            PluginError: when the name was already used in this turn.
            NonFiniteError: for NaN or infinity.
        """
        if name in self._metrics:
            raise PluginError(f"metric {name!r} is reported twice in {self.where}")
        number = float(value.detach() if isinstance(value, Tensor) else value)
        if not math.isfinite(number):
            raise NonFiniteError(f"metric {name!r} is {number} in {self.where}")
        self._metrics[name] = number

    def fault(self, kind: str, reason: str) -> None:
        """Record that something went wrong in this turn although its result is used.

        Args:
            kind: what it is counted as, one word.
            reason: one line for the user.
        """
        self._failures.append(Failure(self.client, self.attempt, kind, reason, lost=False))

    def result(self, seconds: float) -> ClientResult:
        """Close the turn and return what travels and what the client keeps, sealed.

        Raises:
            NonFiniteError: for a loss term or an upload that is not finite, naming it, the round
                and the client.
        """
        # Checked and hashed here rather than on the server, because clients run in parallel.
        self._metrics |= {f"loss.{name}": mean for name, mean in self._terms.means()}
        calls = self._plugins.calls("send_uploads")
        travels = uploaded(calls, self._uploads, self.where, self._empty, ctx=self)
        return ClientResult(
            client=self.client,
            examples=len(self.data),
            uploads=Payload(travels, f"the uploads of client {self.client}"),
            metrics=self._metrics,
            state=self._state.sealed(),
            seconds=seconds,
            failures=tuple(self._failures),
            digests=checksums(travels) if self._job.digests else {},
            observed=self._observed,
        )


__all__ = ["ClientContext", "ServerContext"]
