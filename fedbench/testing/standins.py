"""Stand-ins for unit tests: the arguments of a hook, without a run around it.

These are the real objects, on the kit's tiny data: contexts draw from named streams, uploads are
sealed, and a missing key raises the same error as in a run. ``C`` is 3, ``d`` is 6, inputs are
(1, 8, 8). Pass only what your test is about.

One turn, from what the server sent and the client kept to what the client uploads and keeps::

    ctx = testing.client_context(
        plugins={"mine": Mine()}, payload={"mine.anchor": anchor}, state={"mine.mean": mean}
    )
    result = testing.run_turn(ctx)
    result.uploads, result.state, result.metrics, ctx.model

One hook by itself::

    ctx = testing.client_context(payload={"mine.anchor": anchor})
    batch = testing.batch(ctx)
    terms = Mine().local_loss(ctx=ctx, batch=batch, output=testing.output(ctx, batch))

    reports = [testing.report(client=0, uploads={"mine.mean": mean})]
    update = Mine().server_update(
        ctx=testing.server_context(), state=testing.server_state(), reports=reports
    )
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from .. import options
from ..ambient import settled
from ..config.construct import dotted
from ..context import ClientContext, ServerContext
from ..plugins.discovery import discover
from ..plugins.hooks import RunPlugins
from ..plugins.rules import check_marker, check_plugin_class, marked
from ..random import Streams
from ..types import (
    Batch,
    ClientJob,
    ClientResult,
    Dataset,
    Examples,
    Output,
    Payload,
    Received,
    Report,
    ServerState,
    Value,
    Weights,
    forward,
    seal,
)
from .tiny import PIECES, SHAPES, Form, TinyData, TinyModel

NOTHING: Mapping[str, Any] = MappingProxyType({})

CLASSES = 3
"""C, the classes of the tiny data."""

CPU = torch.device("cpu")

EXAMPLES = 24
"""How many examples a client holds by default."""

BASES = {
    "partition": "kit_partition",
    "select_clients": "kit_selection",
    "train": "kit_training",
    "aggregate": "kit_mean",
    "local_loss": "kit_loss",
}
"""Hook that every run needs -> the kit's own implementation."""


def tiny_dataset(*, examples: int = 36, classes: int = CLASSES, form: Form = "grey") -> Dataset:
    """Return the kit's data set: 3 classes, domains ``ink`` and ``chalk``; see `TinyData`.

    Args:
        examples: training examples per domain; each domain also has 12 test examples.
        classes: C, at most 3.
        form: the kind of inputs: ``grey``, ``rgb``, ``ids`` or ``numbers``.

    >>> tiny_dataset(form="rgb").train.inputs.shape
    torch.Size([72, 3, 32, 32])
    """
    return TinyData(examples=examples, classes=classes, form=form).load(Path())


def client_context(
    *,
    plugins: Mapping[str, object] = NOTHING,
    payload: Mapping[str, Value] = NOTHING,
    state: Mapping[str, Value] = NOTHING,
    data: Examples | None = None,
    model: nn.Module | None = None,
    round: int = 1,
    rounds: int = 3,
    client: int = 0,
    num_clients: int = 10,
    num_classes: int = CLASSES,
    seed: int = 0,
) -> ClientContext:
    """Return the context of a client's turn that is about to start, on the CPU.

    Args:
        plugins: the run's plugins, in YAML order: name -> the plugin, or the options of the
            installed plugin of that name (``{}`` for its defaults). What a run needs besides them
            comes from the kit: plain SGD (learning rate 0.05, one epoch, batches of 8) and, if no
            plugin has a loss term, the cross-entropy.
        payload: what the server sent, by key. ``"weights"`` are loaded into the model.
        state: what the client kept from its last turn; pass ``result.state`` for its next one.
        data: what it holds, after ``client_data``; default 24 tiny images, 8 of each class.
        model: default a `TinyModel` for the data, the same for every seed. It is trained in place.
        round, rounds: the round's number, from 1, and how many rounds the run has.
        client, num_clients: the client's id, and how many clients there are.
        num_classes: C.
        seed: the run's seed, for ``ctx.rng`` and the order of batches.

    Raises:
        ConfigError: when the plugins don't fit together, as in a run.
        PluginError: for a plugin that could not be registered.

    >>> ctx = client_context(payload={"mine.anchor": torch.zeros(6)}, client=2)
    >>> ctx.payload.tensor("mine.anchor").shape, ctx.where
    (torch.Size([6]), 'round 1, client 2')
    >>> ctx.embed()[0].features.shape
    torch.Size([24, 6])
    """
    data = tiny_dataset(examples=EXAMPLES).train[torch.arange(EXAMPLES)] if data is None else data
    model = _model(tuple(data.inputs.shape[1:]), num_classes) if model is None else model
    return ClientContext(
        job=ClientJob(round, client, {k: seal(v, f"client state {k!r}") for k, v in state.items()}),
        rounds=rounds,
        num_classes=num_classes,
        device=CPU,
        model=model.train(),
        initial={name: w.clone() for name, w in model.state_dict().items()},
        payload=_received(payload, model),
        data=data,
        plugins=_completed(plugins),
        streams=Streams(seed),
        num_clients=num_clients,
    )


def run_turn(ctx: ClientContext) -> ClientResult:
    """Play the whole turn, ``client_update`` with all its wrappers, and return its result.

    Afterwards ``ctx.model`` is the trained model. A context serves one turn.

    Args:
        ctx: from `client_context`; its ``plugins`` act in the turn.

    Raises:
        Exception: any error of a plugin, unchanged.

    >>> result = run_turn(client_context(plugins={"exchange": {}}))
    >>> sorted(result.uploads), sorted(result.metrics)
    (['weights'], ['loss.kit_loss'])
    """
    with settled(), ctx.streams.scope("client", ctx.round, ctx.client):
        given = ctx.payload
        ctx.receive()
        if ctx.payload is not given:
            received = ctx.payload.get("weights", {})
            ctx.model.load_state_dict({**ctx.model.state_dict(), **received})
        ctx._plugins.hook.client_update(ctx=ctx)
        return ctx.result(0.0)


def batch(ctx: ClientContext | None = None, *, size: int = 8) -> Batch:
    """Return the first batch of a turn: inputs (B, 1, 8, 8) float in [0, 1], labels (B,).

    Args:
        ctx: the context whose examples are used; default ``client_context()``.
        size: B.

    >>> batch(size=4).inputs.shape
    torch.Size([4, 1, 8, 8])
    """
    return next((ctx or client_context()).batches(size, 1))


def output(ctx: ClientContext | None = None, batch: Batch | None = None) -> Output:
    """Return the model's output for a batch, with its graph: features (B, d), logits (B, C).

    Args:
        ctx: the context whose model is used; default ``client_context()``.
        batch: default the context's first batch of 8.

    >>> output().features.shape, output().logits.shape
    (torch.Size([8, 6]), torch.Size([8, 3]))
    """
    ctx = ctx or client_context()
    found = batch or next(ctx.batches(8, 1))
    return forward(ctx.model, found.inputs)


def server_context(
    *,
    round: int = 1,
    rounds: int = 3,
    num_classes: int = CLASSES,
    client_sizes: tuple[int, ...] = (EXAMPLES, EXAMPLES),
    cohort: tuple[int, ...] | None = None,
    seed: int = 0,
) -> ServerContext:
    """Return the context that the server's hooks receive.

    Args:
        round: the current round, from 1; 0 in ``init_server``.
        rounds: how many rounds the run has.
        num_classes: C.
        client_sizes: training examples of each client, by id.
        cohort: the clients of the round; default all.
        seed: the run's seed, for ``ctx.rng``.

    >>> server_context(client_sizes=(9, 1)).num_clients
    2
    """
    model = _model(SHAPES["grey"], num_classes)
    chosen = tuple(range(len(client_sizes))) if cohort is None else cohort
    return ServerContext(
        round, rounds, num_classes, client_sizes, Streams(seed), model, cohort=chosen
    )


def server_state(
    *, entries: Mapping[str, Value] = NOTHING, weights: Weights | None = None, round: int = 0
) -> ServerState:
    """Return the server's state.

    Args:
        entries: what plugins keep, by key.
        weights: the global model; default the initial weights of a `TinyModel`, as in
            `client_context`.
        round: completed rounds: 0 in the first round's ``broadcast``, 1 in its ``server_update``.

    >>> state = server_state(entries={"mine.mean": torch.ones(6)})
    >>> state.entries.tensor("mine.mean").sum(), state.weights["classifier.weight"].shape
    (tensor(6.), torch.Size([3, 6]))
    """
    model = _model(SHAPES["grey"], CLASSES).state_dict() if weights is None else weights
    kept = {key: seal(value, f"state {key!r}") for key, value in entries.items()}
    sealed = seal(model, "weights")
    assert isinstance(sealed, Mapping)
    return ServerState(round, sealed, Payload(kept, "the server's state"))


def client_result(
    *,
    client: int = 0,
    examples: int = EXAMPLES,
    uploads: Mapping[str, Value] = NOTHING,
    metrics: Mapping[str, float] = NOTHING,
    state: Mapping[str, Value] = NOTHING,
    sent: Mapping[str, Value] = NOTHING,
    observed: Mapping[str, Value] = NOTHING,
) -> ClientResult:
    """Return what a client sends back; ``aggregate`` receives an iterator of these.

    Args:
        client: the client's id.
        examples: how many training examples it holds.
        uploads: what it uploads, by key.
        metrics: the numbers that it reports, by name.
        state: what it keeps for its next turn.
        sent: what the server had sent, from which an update is the difference.
        observed: what plugins observed in its turn, by key.

    >>> client_result(uploads={"weights": {"w": torch.ones(1)}}).uploads.weights()
    {'w': tensor([1.])}
    """
    travels = {key: seal(value, f"upload {key!r}") for key, value in uploads.items()}
    kept = {key: seal(value, f"client state {key!r}") for key, value in state.items()}
    had = {key: seal(value, f"broadcast {key!r}") for key, value in sent.items()}
    return ClientResult(
        client,
        examples,
        Payload(travels, f"the uploads of client {client}"),
        metrics,
        kept,
        seconds=0.0,
        sent=Payload(had, "the broadcast"),
        observed={key: seal(value, f"observation {key!r}") for key, value in observed.items()},
    )


def report(
    *,
    client: int = 0,
    examples: int = EXAMPLES,
    uploads: Mapping[str, Value] = NOTHING,
    metrics: Mapping[str, float] = NOTHING,
    observed: Mapping[str, Value] = NOTHING,
) -> Report:
    """Return what ``server_update`` receives of a client: `client_result` without the weights.

    >>> report(uploads={"mine.rows": torch.ones(2)}).uploads.tensor("mine.rows")
    tensor([1., 1.])
    """
    light = {key: value for key, value in uploads.items() if key != "weights"}
    given = {"client": client, "examples": examples, "metrics": metrics, "observed": observed}
    result = client_result(uploads=light, **given)  # type: ignore[arg-type]
    seen = Payload(result.observed, f"the observations of client {client}")
    return Report(client, examples, result.uploads, metrics, observed=seen)


def _received(payload: Mapping[str, Value], model: nn.Module) -> Received:
    """Seal what the server sent, and load its weights into the model."""
    received = Received({k: seal(v, f"broadcast {k!r}") for k, v in payload.items()}, CPU)
    if "weights" in received:
        model.load_state_dict({**model.state_dict(), **received.weights()})
    return received


def _model(shape: tuple[int, ...], classes: int) -> nn.Module:
    with Streams(0).scope("model"):
        return TinyModel().build(shape, classes)


def _completed(plugins: Mapping[str, object]) -> RunPlugins:
    """Return a run's plugins; the kit's own come first, for required hooks that none implements."""
    made: dict[str, object] = {}
    for name, given in plugins.items():
        if isinstance(given, Mapping):
            cls = discover().get("plugin", name).value
            made[name] = options.build(cls, given, dotted(name))
        else:
            check_plugin_class(name, type(given))
            made[name] = given
    has = {
        hook
        for name, plugin in made.items()
        for hook, function in marked(type(plugin)).items()
        if not check_marker(name, hook, function).get("wrapper")
    }
    kit = {piece: PIECES[piece]() for hook, piece in BASES.items() if hook not in has}
    return RunPlugins([*kit.items(), *made.items()])
