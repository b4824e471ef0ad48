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
        """Change the whole data set before it is partitioned (long tail, subsets); chained."""

    @hookspec(firstresult=True)
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        """Give each client its training examples: one (n_k,) index tensor into ``data.train``."""

    @hookspec
    def client_data(
        self,
        data: Examples,
        client: int,
        num_clients: int,
        num_classes: int,
        rng: np.random.Generator,
    ) -> Examples:
        """Change what one client trains on (label noise, feature noise); chained, every turn.

        ``rng`` starts at the same place every round. Give back as many examples as you got.
        """

    @hookspec
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        """Return the state entries that this plugin keeps, by key. Called once, before round 1."""

    @hookspec(firstresult=True)
    def select_clients(self, ctx: ServerContext, state: ServerState) -> Sequence[int]:
        """Return the ids of the clients that take part in this round, without repetition."""

    @hookspec
    def broadcast(self, ctx: ServerContext, state: ServerState) -> Mapping[str, Value]:
        """Return what every client of this round gets, by key. Two plugins can't send one key."""

    @hookspec
    def transform(self, inputs: Tensor, train: bool, rng: Generator) -> Tensor:
        """Transform a batch (B, ...) of float inputs; chained. Draw from ``rng`` per sample."""

    @hookspec(firstresult=True)
    def client_update(self, ctx: ClientContext) -> object:
        """Train ``ctx.model`` on the client's data. The base implementation returns ``True``.

        Wrappers act before and after it: ``ctx.upload(key, value)``, ``ctx.metric(name, value)``,
        ``ctx.state[key] = value``.
        """

    @hookspec
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """Return scalar loss terms by name, already weighted; ``{}`` for none."""

    @hookspec
    def after_backward(self, ctx: ClientContext, batch: Batch) -> None:
        """Act between the backward pass and the optimiser's step, for example on gradients."""

    @hookspec(firstresult=True)
    def aggregate(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Weights:
        """Return the new global weights. ``results`` is read once, in client-id order."""

    @hookspec
    def server_update(
        self, ctx: ServerContext, state: ServerState, reports: Sequence[Report]
    ) -> ServerUpdate:
        """Return what changes on the server; the next plugin sees it in its ``state``."""

    @hookspec
    def inference(
        self, ctx: ServerContext, state: ServerState
    ) -> Mapping[str, Callable[[Output], Tensor]]:
        """Return rules that turn an `Output` into class scores (B, C), by name."""

    @hookspec
    def personal_models(
        self, state: ServerState, clients: Iterator[Mapping[str, Value]]
    ) -> Iterator[Weights]:
        """Give the models to test on a domain instead of the global one; at most one plugin.

        ``clients`` are the kept states of the clients that train on the domain. The domain's scores
        are the mean over the models given.
        """

    @hookspec
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        """Observe a finished round; ``directory`` is the run's, ``None`` when nothing is kept."""


class DiscoveryHooks:
    """Hooks that a plugin package implements at module level, once per kind of thing."""

    @hookspec
    def register_plugins(self) -> Mapping[str, type]:
        """Return run plugins: name -> frozen dataclass that implements run hooks."""

    @hookspec
    def register_datasets(self) -> Mapping[str, type]:
        """Return data sets: name -> frozen dataclass with ``load(root) -> Dataset``."""

    @hookspec
    def register_models(self) -> Mapping[str, type]:
        """Return models: name -> frozen dataclass with ``build(input_shape, num_classes)``."""

    @hookspec
    def register_metrics(self) -> Mapping[str, type]:
        """Return metrics: name -> frozen dataclass, called with ``(scores, labels)``."""

    @hookspec
    def register_executors(self) -> Mapping[str, type]:
        """Return executors: name -> frozen dataclass with ``open(...) -> Workers``."""

    @hookspec
    def register_recipes(self) -> Mapping[str, Recipe]:
        """Return methods: name -> `Recipe`."""

    @hookspec
    def register_cards(self) -> Mapping[str, Any]:
        """Return protocol cards: name -> path of a YAML file (`pathlib.Path` or a resource)."""
