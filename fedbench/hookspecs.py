"""Every hook of fedbench: the points at which it calls the code of plugins.

In federated learning, a server and clients train one model together. In each round the server sends
the weights to some clients, each of them trains on its own data, and the server aggregates what
they send back. A run as pseudocode, with its hooks by name::

    data  = prepare_data(data)                               once, before round 1; chained
    parts = partition(data)                                  once; exactly one
    run_start(ctx, model, inputs, history, directory)        once; may refuse the run

    clients = select_clients(ctx, state)                     server; exactly one
    pace    = schedule(ctx, state)                           exactly one; when the round ends
    payload = broadcast(ctx, state) of every plugin          one owner per key
    payload = send_broadcast(ctx, state, payload)            chained; what travels, bytes per key
    for client in clients, anywhere, in any order:
        data    = client_data(data, client)                  chained
        payload = receive_broadcast(ctx, payload)            chained, in reverse order
        client_update(ctx)                                   core trains once; any wrappers
            train(ctx, work)                                 exactly one: the optimiser's loop
                loss = sum of local_loss(ctx, batch, output)     named terms of every plugin
                after_backward(ctx, batch)
        uploads = send_uploads(ctx, uploads)                 chained; what travels, bytes per key
        seconds = duration(ctx, effort)                      exactly one, on the server; a clock
    results = receive_uploads(ctx, state, results)           chained, in reverse order; a stream
    weights = aggregate(ctx, state, results)                 exactly one; one pass, client-id order
    state   = server_update(ctx, state, before, reports)     plugin by plugin, in YAML order
    for client in clients with test data, anywhere:
        personalize(ctx)                                     plugin by plugin; the client's model
    scores  = metrics over inference(ctx, state) rules       per domain, per class, per client
    round_end(result, directory)                             observers

    conclude(history)                                        what holds for the whole run, in words
    run_end(status, error, directory)                        observers; once, whatever ends the run

Single hooks (``partition``, ``select_clients``, ``schedule``, ``client_update``, ``train``,
``duration``, ``aggregate``) have exactly one base implementation in a run; other plugins may wrap
it with ``@hookimpl(wrapper=True)``, the first in YAML order outermost. Core has the base of three,
unless a plugin brings one: ``client_update`` trains once, ``schedule`` waits for all clients,
``duration`` takes no time. All other run hooks are called plugin by plugin in YAML order, those
that receive in reverse order, so that what was changed last on the way out is undone first; in a
chained hook, each plugin gets what the one before it returned. An implementation takes any subset
of a hook's arguments, by name and without defaults. Plugins are frozen dataclasses that hold
options only: what lasts belongs in the server's or the client's state.

This file has over 400 lines, because it is the one list of all hooks.
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor, nn

    from .context import ClientContext, ServerContext
    from .contracts import DataSource, Executor, Metric, ModelSource
    from .random import Streams
    from .training import Training
    from .turns import Effort, Pace
    from .types import (
        Batch,
        ClientResult,
        Dataset,
        Examples,
        Output,
        Payload,
        Recipe,
        Report,
        RoundResult,
        RunStatus,
        ServerState,
        ServerUpdate,
        Value,
        Weights,
    )

hookspec = pluggy.HookspecMarker("fedbench")
hookimpl = pluggy.HookimplMarker("fedbench")

HOOK_API = 1
"""The version of the hooks below. A package states the version that it was written for as a plain
number, ``fedbench_api = 1``, in the module that its entry point names. The version goes up when a
package that worked could break: a hook or an argument is renamed or removed, or its meaning or what
it has to return changes. New hooks, arguments and kinds of things to register do not raise it.
"""

SINGLE = frozenset(
    {"partition", "select_clients", "schedule", "client_update", "train", "duration", "aggregate"}
)
"""Hooks with exactly one base implementation in a run."""

CORE_HAS = frozenset({"client_update", "schedule", "duration"})
"""Single hooks that core implements itself in a run where no plugin does."""

OBSERVERS = frozenset({"run_start", "round_end", "run_end"})
"""Hooks of any number of plugins that change nothing."""

REQUIRED_ANY = frozenset({"local_loss"})
"""Hooks that at least one plugin of a run implements."""


class RunHooks:
    """Hooks that the plugins of a run implement."""

    @hookspec
    def prepare_data(self, data: Dataset, rng: np.random.Generator) -> Dataset:
        """Change the whole data set before it is partitioned (long tail, subsets); chained.

        When: once, before ``partition``; again when a run is resumed. Workers use its result.
        Returns: the changed `Dataset`.
        """

    @hookspec(firstresult=True)
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        """Give each client its training examples.

        When: once, after ``prepare_data``.
        Returns: one (n_k,) index tensor into ``data.train`` per client, by client id; n_k >= 1.
        Examples may be left out, but none may be given out twice; core does not check that.
        """

    @hookspec
    def client_data(
        self,
        data: Examples,
        client: int,
        num_clients: int,
        num_classes: int,
        rng: np.random.Generator,
        streams: Streams,
    ) -> Examples:
        """Change what one client trains on (label noise, feature noise); chained.

        When: at the start of every turn of the client. ``rng`` starts at the same place in every
        round. ``streams`` are for draws that all clients share: who is malicious.
        Returns: the `Examples` to train on, as many as ``data`` has.
        """

    @hookspec
    def run_start(
        self,
        ctx: ServerContext,
        model: nn.Module,
        inputs: Tensor,
        history: Sequence[RoundResult],
        directory: Path | None,
    ) -> None:
        """Look at a run before its first round, and refuse what cannot work.

        When: once, when data, partition and model exist; again when a run is resumed, with the
        rounds so far as ``history`` and their number as ``ctx.round``. ``inputs`` (1, ...) are one
        training example as ``model`` gets it in tests. Leave ``model`` as it was. ``directory`` is
        the run directory, or ``None`` when nothing is saved.
        Returns: nothing; it raises `ConfigError` for a run that cannot work.
        """

    @hookspec
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        """Set up what this plugin keeps on the server.

        When: once, before round 1, with the initial weights; not again when a run is resumed.
        Returns: state entries by key: a tensor, a `PerClass`, or tensors by name; ``{}`` for none.
        A key belongs to the plugin that wrote it first.
        """

    @hookspec(firstresult=True)
    def select_clients(self, ctx: ServerContext, state: ServerState) -> Sequence[int]:
        """Choose the clients that take part in a round.

        When: on the server, at the start of every round.
        Returns: distinct client ids, at least one, in any order; it matters only to a schedule that
        lets one start when another has answered.
        """

    @hookspec(firstresult=True)
    def schedule(self, ctx: ServerContext, state: ServerState) -> Pace:
        """Decide when the round ends in virtual time, and what becomes of late clients.

        When: on the server, after ``select_clients``; ``ctx.cohort`` has the selected clients,
        ``state.flight`` those that are still at work. Core's base waits for all. Another one needs
        a clock: a plugin with ``duration``.
        Returns: a `fedbench.turns.Pace`.
        """

    @hookspec
    def broadcast(self, ctx: ServerContext, state: ServerState) -> Mapping[str, Value]:
        """Send values to every client of the round.

        When: on the server, after ``select_clients``.
        Returns: values by key; ``{}`` for none. Two plugins cannot send the same key. Clients load
        ``"weights"`` into the model; what it lacks has its initial value.
        """

    @hookspec
    def send_broadcast(
        self, ctx: ServerContext, state: ServerState, payload: Payload
    ) -> Mapping[str, Value]:
        """Change what every client of the round is sent: encode it, add to it, leave parts out.

        When: on the server, after ``broadcast``; chained. What the last plugin returns travels, and
        its bytes are counted by key.
        Returns: values by key; `Encoded` ones must be decoded by ``receive_broadcast``.
        """

    @hookspec
    def receive_broadcast(self, ctx: ClientContext, payload: Payload) -> Mapping[str, Value]:
        """Decode or change what the client received.

        When: at the start of a client's turn, before ``ctx.model`` has the received weights;
        chained in reverse order. The values are on ``ctx.device``; do not write to them.
        Returns: values by key; they become ``ctx.payload``.
        """

    @hookspec
    def transform(self, inputs: Tensor, train: bool, rng: Generator) -> Tensor:
        """Transform a batch (B, ...) of float inputs; chained. Draw from ``rng`` for each sample.

        When: on every batch; ``train`` is true in training, false for test data and ``ctx.embed``.
        Returns: the transformed inputs (B, ...).
        """

    @hookspec(firstresult=True)
    def client_update(self, ctx: ClientContext) -> object:
        """Take one client's turn: train ``ctx.model``, upload what the server needs.

        When: once per selected client and round, in any process and any order. Core's base calls
        ``ctx.train()`` once. Wrappers run code before and after it, such as ``ctx.upload(key,
        value)``, ``ctx.metric(name, value)`` or ``ctx.state[key] = value``. A plugin that trains
        otherwise (in phases, or not at all) implements the base itself.
        Returns: nothing that is used; a wrapper returns what its ``yield`` returned.
        """

    @hookspec(firstresult=True)
    def train(self, ctx: ClientContext, work: Training) -> object:
        """Run the optimiser's loop over one pass: the trainer.

        When: in every ``ctx.train(...)`` of a turn or of ``personalize``. Set ``work.lr`` and
        ``work.momentum``, then for each batch of ``work.batches(batch_size, epochs)`` call
        ``work.backward(batch)`` and update ``work.parameters`` in place.
        Returns: ``True`` from the base; a wrapper returns what its ``yield`` returned.
        """

    @hookspec
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """Add terms to the loss of one batch; core sums the terms of all plugins.

        When: in every training step, after the forward pass, and wherever ``ctx.loss`` is called;
        ``ctx.model`` is the model that produced ``output``.
        Returns: floating-point scalar tensors by name, already weighted; ``{}`` for none.
        """

    @hookspec
    def after_backward(self, ctx: ClientContext, batch: Batch) -> None:
        """Read or change the gradients of ``ctx.model``'s parameters.

        When: in every step of a pass that is recorded (the turn's own, not one that a plugin adds),
        between the backward pass and the optimiser's step.
        Returns: nothing.
        """

    @hookspec
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        """Change what a client sends: clip it, add noise, encode it, leave parts out, attack.

        When: at the end of a client's turn; chained. ``uploads`` are on the CPU. What the server
        had sent is ``ctx.sent``, on ``ctx.device``. What the last plugin returns travels, and its
        bytes are counted by key.
        Returns: values by key; `Encoded` ones must be decoded by ``receive_uploads``.
        """

    @hookspec(firstresult=True)
    def duration(self, ctx: ServerContext, effort: Effort) -> float:
        """State how long a client's turn takes in virtual time: the clock.

        When: on the server, for every turn once it has been computed, also for one that failed.
        Draw random numbers from ``ctx.streams`` by ``effort.round`` and ``effort.client``. Core's
        base returns 0, and a run without another one has no virtual time.
        Returns: virtual seconds, finite and not negative.
        """

    @hookspec
    def receive_uploads(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Iterator[ClientResult]:
        """Decode or change what clients sent, take what nobody else needs, or leave clients out.

        When: on the server, once per round, as a stream between the clients and ``aggregate``;
        chained in reverse order. What the server had sent a client is ``result.sent``. What has to
        be known in ``server_update`` belongs in ``ctx.scratch``; a model-sized key that is summed
        here and left out of the result keeps memory flat.
        Returns: an iterator of results in the same order; ``result.with_uploads(...)`` makes them.
        """

    @hookspec(firstresult=True)
    def aggregate(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Weights | ServerUpdate:
        """Compute the new global weights from the clients' results.

        When: on the server, once per round. ``results`` can be iterated once, in client-id order,
        while clients are still running; keep no more of it than you need.
        Returns: parameters and buffers by name, all finite; what is left out stays as it is. With
        state entries or metrics of its own (whom it chose), a `ServerUpdate`.
        """

    @hookspec
    def server_update(
        self, ctx: ServerContext, state: ServerState, before: Weights, reports: Sequence[Report]
    ) -> ServerUpdate:
        """Change the server's state or weights after aggregation: a server optimiser, prototypes.

        When: once per round, after ``aggregate``; ``state`` has the new weights and the changes of
        the plugins before this one in YAML order, ``before`` the weights from before the round.
        Returns: a `ServerUpdate`: state entries and weights to replace, numbers to report.
        """

    @hookspec
    def inference(
        self, ctx: ServerContext, state: ServerState
    ) -> Mapping[str, Callable[[Output], Tensor]]:
        """Offer ways to predict other than with the model's classifier.

        When: at the end of every round, before the test data is scored.
        Returns: functions by name from an `Output` to class scores (B, C); ``{}`` for none. All are
        scored; ``accuracy.inference`` in the config names the one that is the run's accuracy.
        """

    @hookspec
    def personalize(self, ctx: ClientContext) -> None:
        """Turn ``ctx.model`` into the model that the client would use, for its scores.

        When: after ``server_update``, in every round that is scored, for each client to be scored,
        in any process; plugin by plugin. ``ctx.model`` has the new global weights, ``ctx.payload``
        what ``broadcast`` returns now, ``ctx.state`` what the client keeps. It may train with
        ``ctx.train``. Scoring changes nothing: uploads are errors, ``ctx.state`` is not kept.
        Without any plugin the client uses the global model.
        Returns: nothing.
        """

    @hookspec
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        """Observe a finished round.

        When: after the round's result is written; ``directory`` is the run directory, or ``None``
        when nothing is saved.
        Returns: nothing; the result cannot be changed.
        """

    @hookspec
    def conclude(self, history: Sequence[RoundResult]) -> Sequence[str]:
        """State what holds for the run as a whole, such as the privacy that it gave its clients.

        When: when the run's result is made; ``history`` are its rounds, at least one.
        Returns: sentences, which are printed with the result and kept in it; ``()`` for none.
        """

    @hookspec
    def run_end(self, status: RunStatus, error: str | None, directory: Path | None) -> None:
        """Observe the end of a run, for example to close what ``run_start`` opened.

        When: once, after the last round that is played, also when ``run_start`` refused the run;
        not when the process is killed. ``status`` is ``"finished"`` once the result is written,
        ``"failed"`` with ``error`` as one line, or ``"interrupted"``: Ctrl-C, SIGTERM, or a loop
        over the rounds that was left early.
        Returns: nothing; what it raises changes nothing about the run and is shown.
        """


class DiscoveryHooks:
    """Hooks that a plugin package implements at module level, one per kind of thing it offers."""

    @hookspec
    def register_plugins(self) -> Mapping[str, type]:
        """Register run plugins.

        When: at discovery, once per installed package, like all hooks of this class.
        Returns: name -> frozen dataclass that implements run hooks.
        """

    @hookspec
    def register_datasets(self) -> Mapping[str, type[DataSource]]:
        """Register data sets.

        When: at discovery.
        Returns: name -> frozen dataclass with ``load(root) -> Dataset``. The class may state its
        default ``card``, and for ``fedbench data`` its ``size``, ``licence``, ``source``,
        ``classes`` and ``domains``.
        """

    @hookspec
    def register_models(self) -> Mapping[str, type[ModelSource]]:
        """Register models.

        When: at discovery.
        Returns: name -> frozen dataclass with ``build(input_shape, num_classes) -> nn.Module``. The
        module has ``features(inputs)``, (B, ...) to (B, d), and an ``nn.Linear`` named
        ``classifier``.
        """

    @hookspec
    def register_metrics(self) -> Mapping[str, type[Metric]]:
        """Register metrics.

        When: at discovery.
        Returns: name -> frozen dataclass, a `fedbench.contracts.Metric` of class scores and labels.
        """

    @hookspec
    def register_executors(self) -> Mapping[str, type[Executor]]:
        """Register executors.

        When: at discovery.
        Returns: name -> frozen dataclass with ``open(runtime)``, which returns workers:
        ``run(payload, jobs)`` yields results in client-id order, ``close()`` releases resources.
        """

    @hookspec
    def register_recipes(self) -> Mapping[str, Recipe]:
        """Register methods.

        When: at discovery.
        Returns: name -> `Recipe`.
        """

    @hookspec
    def register_cards(self) -> Mapping[str, Any]:
        """Register protocol cards.

        When: at discovery.
        Returns: name -> path of a YAML file (a `pathlib.Path` or a package resource).
        """

    @hookspec
    def register_reproductions(self) -> Mapping[str, Any]:
        """Register reproductions: published results, the runs that measure them, and a rule.

        When: at discovery.
        Returns: name -> path of a YAML file, as for ``register_cards``.
        """
