"""What the robust aggregators share: a round's updates as points, and the way back to weights.

A client's point is its update: its weights minus the weights that the server had sent, as one
vector over all floating-point parameters and buffers. Integer buffers are the first client's. All
clients are needed at once: with K clients and n floating-point numbers in the model, a round takes
the memory of about 2 K n numbers, besides what the rule itself takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbench import ClientResult, ServerState, Weights

from .vectors import flat, restored

ROLE = "robust mean"
"""The role of aggregators that keep a few clients from deciding the mean."""

ONE_MEAN: Mapping[str, str] = {ROLE: "both decide how the clients' updates are averaged"}
"""What they state as ``conflicts``; those that need a plain mean state the role themselves."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """One round's updates.

    Args:
        clients: their ids, ascending.
        examples: (K,) how many examples each of them says that it holds.
        points: (K, n), one update per row.
        base: what the server had sent, by name.
        first: the first client's weights.
    """

    clients: tuple[int, ...]
    examples: Tensor
    points: Tensor
    base: Weights
    first: Weights

    def moved(self, update: Tensor) -> Weights:
        """Return the weights after the update (n,)."""
        return moved(self.base, restored(update, self.first))


def cohort(state: ServerState, results: Iterable[ClientResult]) -> Cohort:
    """Return the updates of a round's clients; a weight that was not sent is the server's own.

    Raises:
        PluginError: for a client that did not send weights.
    """
    clients, examples, rows = list[int](), list[int](), list[Tensor]()
    base: Weights = {}
    first: Weights = {}
    for result in results:
        weights = result.uploads.weights()
        if not rows:
            base, first = received(state, result), weights
        clients.append(result.client)
        examples.append(result.examples)
        rows.append(flat(update(weights, base)))
    return Cohort(tuple(clients), torch.tensor(examples), torch.stack(rows), base, first)


def received(state: ServerState, result: ClientResult) -> Weights:
    """Return the weights that the server had sent a client, completed by its own."""
    return {**state.weights, **result.sent.get("weights", {})}


def update(weights: Weights, base: Weights) -> Weights:
    """Return ``weights - base`` by name, floating-point only, rounded once."""
    return {
        name: (w.double() - base[name].double()).to(w.dtype)
        for name, w in weights.items()
        if w.is_floating_point()
    }


def moved(base: Weights, update: Weights) -> Weights:
    """Return ``base + update``, rounded once; integers are taken from ``update`` as they are."""
    return {
        name: (base[name].double() + d.double()).to(d.dtype) if d.is_floating_point() else d
        for name, d in update.items()
    }


def count(share: float, clients: int) -> int:
    """Return the whole clients in a share of ``clients``, whatever the share's binary fraction."""
    return math.floor(share * clients + 1e-9)
