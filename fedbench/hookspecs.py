"""Every hook of fedbench. One round, as pseudocode::

    data  = prepare_data(data)                               once, before round 1; chained
    parts = partition(data)                                  once; exactly one

    clients = select_clients(ctx, state)                     server; exactly one
    payload = broadcast(ctx, state) of every plugin          server -> clients, bytes per key
    for client in clients, anywhere, in any order:
        data = client_data(data, client)                     chained
        result = client_update(ctx)                          one base trainer, any wrappers
            for each batch:
                loss = sum of local_loss(ctx, batch, output)     named terms of every plugin
                after_backward(ctx, batch)
    weights = aggregate(ctx, state, results)                 exactly one; one pass, client-id order
    state   = server_update(ctx, state, reports)             plugin by plugin, in YAML order
    scores  = metrics over inference(ctx, state) rules       per domain, per class
    round_end(result, directory)                             observers

Single hooks (``partition``, ``select_clients``, ``client_update``, ``aggregate``) have exactly one
base implementation in a run; others may wrap it with ``@hookimpl(wrapper=True)``, the first in YAML
order outermost. All other run hooks are called plugin by plugin in YAML order. An implementation
takes any subset of a hook's arguments, by name, and none with a default. Plugins are frozen
dataclasses that hold options only: what lasts is in the server's or the client's state.
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor

    from .context import ClientContext, ServerContext
    from .contracts import DataSource, Executor, Metric, ModelSource
    from .types import (
        Batch,
        ClientResult,
        Dataset,
        Examples,
        Output,
        Recipe,
        Report,
        RoundResult,
        ServerState,
        ServerUpdate,
        Value,
        Weights,
    )

hookspec = pluggy.HookspecMarker("fedbench")
hookimpl = pluggy.HookimplMarker("fedbench")

HOOK_API = 1
"""The version of the hooks below. The module that a package's entry point names states the one that
it was written for, as a plain number: ``fedbench_api = 1``. It goes up when a package that worked
could break: a hook or an argument is renamed or taken away, means something else, or has to return
something else. A new hook, a new argument or a new kind of thing to register is no new version.
"""

SINGLE = frozenset({"partition", "select_clients", "client_update", "aggregate"})
"""Hooks with exactly one base implementation in a run."""

AT_MOST_ONE = frozenset({"personal_models"})
"""Hooks that at most one plugin of a run implements."""

REQUIRED_ANY = frozenset({"local_loss"})
"""Hooks that at least one plugin of a run implements."""


class RunHooks:
    """Hooks that the plugins of a run implement."""

    @hookspec
    def prepare_data(self, data: Dataset, rng: np.random.Generator) -> Dataset:
        """Change the whole data set before it is partitioned (long tail, subsets); chained.

        When: once, before ``partition``; again when a run is resumed. Workers get its result.
        Returns: the `Dataset` to go on with; the next plugin gets it.
        """

    @hookspec(firstresult=True)
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        """Give each client its training examples.

        When: once, after ``prepare_data``.
        Returns: for each client, by id, an (n_k,) index tensor into ``data.train``; n_k >= 1.
        Indices may be left out; that none is given twice is the partitioner's duty.
        """

    @hookspec
    def client_data(
        self,
        data: Examples,
        client: int,
        num_clients: int,
        num_classes: int,
        rng: np.random.Generator,
    ) -> Examples:
        """Change what one client trains on (label noise, feature noise); chained.

        When: at the start of every turn of the client. ``rng`` starts at the same place every
        round, so the change is the same every round.
        Returns: the `Examples` to train on, as many as it got.
        """

    @hookspec
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        """Set up what this plugin keeps on the server.

        When: once, before round 1, with the initial weights; a resumed run has its state already.
        Returns: state entries by key: a tensor, a `PerClass`, or tensors by name; ``{}`` for none.
        A key belongs to the plugin that wrote it first.
        """

    @hookspec(firstresult=True)
    def select_clients(self, ctx: ServerContext, state: ServerState) -> Sequence[int]:
        """Choose who takes part.

        When: on the server, at the start of every round.
        Returns: distinct client ids, at least one, in any order; they are sorted afterwards.
        """

    @hookspec
    def broadcast(self, ctx: ServerContext, state: ServerState) -> Mapping[str, Value]:
        """Say what every client of this round gets.

        When: on the server, after ``select_clients``.
        Returns: values by key; ``{}`` for none. Two plugins can't send one key. ``"weights"`` is
        what clients load into the model; without it they start from the initial weights.
        """

    @hookspec
    def transform(self, inputs: Tensor, train: bool, rng: Generator) -> Tensor:
        """Transform a batch (B, ...) of float inputs; chained. Draw from ``rng`` per sample.

        When: on every batch, of training (``train``), test data and ``ctx.embed`` (not ``train``).
        Returns: the (B, ...) inputs for the next transform or the model.
        """

    @hookspec(firstresult=True)
    def client_update(self, ctx: ClientContext) -> object:
        """Train ``ctx.model`` on the client's data: one client's turn.

        When: once for each selected client and round, in any process and any order. Wrappers run
        code before and after the base: ``ctx.upload(key, value)``, ``ctx.metric(name, value)``,
        ``ctx.state[key] = value``.
        Returns: ``True`` from the base; a wrapper hands on what its ``yield`` gave it.
        """

    @hookspec
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """Add terms to the loss of one batch; core sums the terms of all plugins.

        When: in every training step, after the forward pass.
        Returns: floating scalar tensors by name, already weighted; ``{}`` for none.
        """

    @hookspec
    def after_backward(self, ctx: ClientContext, batch: Batch) -> None:
        """Act on the gradients, which are in ``ctx.model``'s parameters.

        When: in every training step, between the backward pass and the optimiser's step.
        Returns: nothing.
        """

    @hookspec(firstresult=True)
    def aggregate(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Weights:
        """Make the new global weights from the clients' results.

        When: on the server, once a round. ``results`` is read once, in client-id order, as clients
        finish; keep no more of it than you need.
        Returns: parameters and buffers by name, as in ``state.weights``; finite.
        """

    @hookspec
    def server_update(
        self, ctx: ServerContext, state: ServerState, reports: Sequence[Report]
    ) -> ServerUpdate:
        """Change the server after aggregation.

        When: once a round, after ``aggregate``; ``state`` has the new weights, and what plugins
        before this one in YAML order changed.
        Returns: a `ServerUpdate`: state entries and weights to replace, numbers to report.
        """

    @hookspec
    def inference(
        self, ctx: ServerContext, state: ServerState
    ) -> Mapping[str, Callable[[Output], Tensor]]:
        """Offer other ways to predict than the model's classifier.

        When: at the end of every round, before the test data are scored.
        Returns: rules by name, each from an `Output` to class scores (B, C); ``{}`` for none. All
        are scored; the config's ``accuracy.inference`` says which one is the run's accuracy.
        """

    @hookspec
    def personal_models(
        self, state: ServerState, clients: Iterator[Mapping[str, Value]]
    ) -> Iterator[Weights]:
        """Give the models to test on a domain instead of the global one; at most one plugin.

        When: at the end of every round, for each domain with test data. ``clients`` are the kept
        states of the clients that train on the domain; one that had no turn yet is not among them.
        Returns: an iterator of weights, at least one; the domain's scores are the mean over them.
        """

    @hookspec
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        """Observe a finished round.

        When: after the round's result is written; ``directory`` is the run's, ``None`` when nothing
        is kept.
        Returns: nothing; the result can't be changed.
        """


class DiscoveryHooks:
    """Hooks that a plugin package implements at module level, once per kind of thing."""

    @hookspec
    def register_plugins(self) -> Mapping[str, type]:
        """Register run plugins.

        When: at discovery, once for each installed package, like all hooks of this class.
        Returns: name -> frozen dataclass that implements run hooks.
        """

    @hookspec
    def register_datasets(self) -> Mapping[str, type[DataSource]]:
        """Register data sets.

        When: at discovery.
        Returns: name -> frozen dataclass with ``load(root) -> Dataset``; the class may name its
        default ``card``, and for `fedbench data` its ``size``, ``licence``, ``source``,
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
        Returns: name -> frozen dataclass, a `fedbench.contracts.Metric`: with ``higher_is_better``
        and ``unit``, called with class scores (N, C) and labels (N,) of one domain; it returns a
        float, or a list of C floats with ``None`` for a class that has none.
        """

    @hookspec
    def register_executors(self) -> Mapping[str, type[Executor]]:
        """Register executors.

        When: at discovery.
        Returns: name -> frozen dataclass with ``open(runtime)``, which gives workers:
        ``run(payload, jobs)`` yields results in client-id order, ``close()`` releases what they
        hold.
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
        Returns: name -> path of a YAML file (`pathlib.Path` or a resource).
        """
