"""The context that hooks get as ``ctx``: the run as the server sees it, or one client's turn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .client_state import ClientState
from .errors import NonFiniteError, PluginError
from .pipeline import Pipeline, batch_sizes, eval_batch, send
from .random import Streams
from .types import (
    Batch,
    ClientJob,
    ClientResult,
    Empty,
    Examples,
    Failure,
    Output,
    Payload,
    Value,
    forward,
    seal,
    tensors,
)
from .values import all_finite, checksum, label
from .watching import UNWATCHED, Watch, each

if TYPE_CHECKING:
    from .plugins.hooks import RunPlugins


@dataclass(frozen=True, eq=False)
class ServerContext:
    """The run as the server's hooks see it.

    Args:
        round: the current round, from 1; 0 in ``init_server``.
        rounds: how many rounds the run has.
        num_classes: C.
        client_sizes: how many training examples each client holds, by client id.
        streams: the run's random streams.
    """

    round: int
    rounds: int
    num_classes: int
    client_sizes: tuple[int, ...]
    streams: Streams

    @property
    def num_clients(self) -> int:
        """How many clients there are, selected or not."""
        return len(self.client_sizes)

    def rng(self, purpose: str) -> torch.Generator:
        """Return a fresh generator for this round; begin ``purpose`` with your plugin's name."""
        return self.streams.torch(purpose, self.round)


class ClientContext:
    """One client's turn in one round, as the client's hooks see it.

    Attributes:
        round, rounds: the current round, from 1, and how many rounds the run has.
        client: the client's id.
        attempt: 1, or more when the turn failed and is tried again (``failures.policy: retry``).
            Random streams do not depend on it unless their purpose names it.
        num_classes: C.
        device: where the model is.
        model: the model, loaded with the received weights; train it in place.
        payload: what the server sent, by key. A wrapper of ``client_update`` may replace it with
            another `fedbench.types.Received` for the turn; do not write to its tensors.
        state: what this client kept from its last turn; assign to it what the client should keep.
            A value is copied when it is assigned, see `fedbench.client_state.ClientState`.
        scratch: values that plugins share within this turn; discarded afterwards.
        data: the client's raw examples, on the CPU.
    """

    def __init__(
        self,
        *,
        job: ClientJob,
        rounds: int,
        num_classes: int,
        device: torch.device,
        model: nn.Module,
        payload: Payload,
        data: Examples,
        plugins: RunPlugins,
        streams: Streams,
        attempt: int = 1,
        empty: Empty | None = None,
        watch: Watch = UNWATCHED,
    ) -> None:
        self.attempt, self._watch = attempt, watch
        self._empty = empty
        self.round, self.client, self.rounds = job.round, job.client, rounds
        self.num_classes, self.device, self.model = num_classes, device, model
        self.payload, self.data = payload, data
        self._state = ClientState(job.state, self.where, empty, watch)
        self.scratch: dict[str, Any] = {}
        self._plugins, self._streams = plugins, streams
        self._pipeline = Pipeline(plugins, device, self.rng)
        self._losses = plugins.calls("local_loss")
        self._after = plugins.calls("after_backward")
        self._uploads: dict[str, Value] = {}
        self._metrics: dict[str, float] = {}
        self._terms: dict[str, Tensor] = {}
        self._owners: dict[str, str] = {}
        self._failures: list[Failure] = []
        self._seen = 0

    @property
    def state(self) -> ClientState:
        """What this client keeps, by key; see the class's docstring."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Value]) -> None:
        if values is not self._state:  # the same after ``ctx.state |= values``
            self._state.replace(values)

    def rng(self, purpose: str) -> torch.Generator:
        """Return a fresh generator for this client and round.

        Begin ``purpose`` with your plugin's name.
        """
        return self._streams.torch(purpose, self.round, self.client)

    @property
    def where(self) -> str:
        """The place for error messages: ``round 3, client 7``."""
        return f"round {self.round}, client {self.client}"

    def prepare(self, inputs: Tensor, train: bool = False) -> Tensor:
        """Return the model inputs for raw inputs (B, ...): on the device and transformed."""
        with self.phase("data"):
            return self._pipeline(inputs, train)

    def batches(self, batch_size: int, epochs: int, drop_last: bool = False) -> Iterator[Batch]:
        """Yield shuffled, transformed batches in ``epochs`` passes over the client's data.

        The order depends only on seed, round and client. With ``drop_last``, a last batch that is
        smaller is left out unless it is the only one.
        """
        return each(self._watch, "data", self._batches(batch_size, epochs, drop_last))

    def _batches(self, batch_size: int, epochs: int, drop_last: bool) -> Iterator[Batch]:
        order = self._streams.numpy("batches", self.round, self.client)
        n = len(self.data)
        sizes = batch_sizes(n, batch_size, drop_last)
        for epoch in range(epochs):
            permutation = torch.from_numpy(order.permutation(n))
            for index in permutation[: sum(sizes)].split(sizes):
                chosen = self.data[index]
                yield Batch(
                    self.prepare(chosen.inputs, train=True),
                    send(chosen.labels, self.device),
                    epoch,
                    epochs,
                )

    def loss(self, batch: Batch) -> Tensor:
        """Run the model and return the sum of all plugins' loss terms, in YAML order.

        Raises:
            PluginError: for a term that is not a floating-point scalar, or when two plugins return
                a term of the same name.
            NonFiniteError: for a NaN or infinite term, naming plugin, term, round and client.
        """
        with self.phase("forward"):
            output = forward(self.model, batch.inputs)
        total: Tensor | None = None
        for plugin, call in self._losses:
            terms = call(ctx=self, batch=batch, output=output)
            if not isinstance(terms, Mapping):
                raise PluginError(
                    f"plugin {plugin!r}: local_loss returned {type(terms).__name__} in "
                    f"{self.where}; return a mapping, {{}} for no term"
                )
            for name, term in terms.items():
                self._record(plugin, name, term, len(batch.labels))
                total = term if total is None else total + term
        if total is None:
            raise PluginError(f"no plugin returned a loss term in {self.where}")
        self._seen += len(batch.labels)
        return total

    def _record(self, plugin: str, name: str, term: Tensor, size: int) -> None:
        if not isinstance(term, Tensor) or term.ndim != 0 or not term.is_floating_point():
            shape = f"shape {tuple(term.shape)}" if isinstance(term, Tensor) else repr(term)
            raise PluginError(
                f"plugin {plugin!r}: loss term {name!r} must be a floating-point scalar tensor, "
                f"got {shape} in {self.where}"
            )
        if self._owners.setdefault(name, plugin) != plugin:
            raise PluginError(
                f"plugins {self._owners[name]!r} and {plugin!r} both return loss term {name!r}"
            )
        value = term.detach()
        # On a GPU, reading a value means waiting, so there only the sum is checked, after training.
        if self.device.type == "cpu" and not math.isfinite(float(value)):
            self._not_finite(plugin, name, float(value))
        self._terms[name] = self._terms.get(name, 0) + value.double() * size

    def _not_finite(self, plugin: str, name: str, value: float) -> None:
        raise NonFiniteError(
            f"plugin {plugin!r}: loss term {name!r} is {value} in {self.where}; try a smaller "
            "learning rate"
        )

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that names a step of the training for ``fedbench profile``.

        Trainers write ``with ctx.phase("backward"): loss.backward()`` and ``with
        ctx.phase("optimiser"): optimizer.step()``; `loss` enters ``"forward"`` itself. What a
        plugin does outside any phase is listed under the plugin's name.
        """
        return self._watch.phase(name)

    def after_backward(self, batch: Batch) -> None:
        """Call the plugins' ``after_backward``; trainers do so before the optimiser's step."""
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
        training = self.model.training
        self.model.eval()
        chunks = data.inputs.split(eval_batch(self.device))
        with self.phase("forward"):
            parts = [forward(self.model, self.prepare(chunk)) for chunk in chunks]
        self.model.train(training)
        features = torch.cat([p.features for p in parts])
        logits = torch.cat([p.logits for p in parts])
        return Output(features, logits), data.labels.to(self.device)

    @property
    def uploads(self) -> Mapping[str, Value]:
        """What this turn has uploaded so far, by key; read-only."""
        return MappingProxyType(self._uploads)

    def upload(self, key: str, value: Value, replace: bool = False) -> None:
        """Send ``value`` to the server under ``key``: a sealed copy, its bytes counted.

        With ``replace`` it replaces what another plugin sends under that key (noise, compression,
        faults); the plugin that replaces comes before the other one in YAML order.

        Raises:
            PluginError: when the key was already used in this turn and ``replace`` is not given, or
                when ``key`` is not text or ``value`` has the wrong type.
        """
        if not isinstance(key, str):
            raise PluginError(f"a key of an upload must be text, got {key!r}")
        if key in self._uploads and not replace:
            raise PluginError(f"two plugins upload {key!r} in {self.where}")
        with self.phase("uploads"):
            self._uploads[key] = seal(value, f"upload {key!r}", self._empty)

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
        for name, total in self._terms.items():
            mean = float(total) / self._seen
            if not math.isfinite(mean):
                self._not_finite(self._owners[name], name, mean)
            self._metrics[f"loss.{name}"] = mean
        found = {}
        for key in sorted(self._uploads):
            for name, tensor in tensors(self._uploads[key]):
                if not all_finite(tensor):
                    what = f"upload {key!r}" + (f", tensor {name!r}," if name else "")
                    raise NonFiniteError(f"{what} is not finite in {self.where}")
                found[label(key, name)] = checksum(tensor)
        return ClientResult(
            client=self.client,
            examples=len(self.data),
            uploads=Payload(self._uploads, f"the uploads of client {self.client}"),
            metrics=self._metrics,
            state=self._state.sealed(),
            seconds=seconds,
            failures=tuple(self._failures),
            digests=found,
        )
