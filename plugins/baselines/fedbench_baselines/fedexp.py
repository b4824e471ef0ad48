"""FedExP: the server extrapolates; its step grows as the clients' updates disagree.

Jhunjhunwala, Wang, Joshi: FedExP: Speeding Up Federated Averaging via Extrapolation, ICLR 2023.

Here ``epsilon`` is used as it is given. The released code multiplies it by the number of clients
and, each round, by the squared decay of the learning rate; it weights clients by examples and
scores the mean of the last two iterates, while it trains from the last. The paper's text was not
re-read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fedbench import (
    ClientResult,
    Payload,
    Search,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)

from .fedavg import SHARES
from .server_steps import AHEAD, PLAIN_MEAN, ROLE, parameters, zeros
from .vectors import combined, difference, squared_norm, weighted_sum

KEY = "fedexp.ahead"


def step_size(deltas: Iterable[tuple[Weights, float]], epsilon: float) -> float:
    """Return ``max(1, sum_k p_k ||D_k||^2 / (2 (||D||^2 + epsilon)))`` with ``D = sum_k p_k D_k``.

    The new weights are ``w_t + step * D``. For one client, or when nothing moved, the step is 1.

    Args:
        deltas: per client, at least one: its update D_k = w_k - w_t, trainable parameters by name,
            and its share p_k; the shares add up to 1. Read once, one update in memory at a time.
        epsilon: keeps the step finite when updates cancel, > 0.
    """
    squares = 0.0

    def measured() -> Iterator[tuple[Weights, float]]:
        nonlocal squares
        for delta, share in deltas:
            squares += share * squared_norm(delta)
            yield delta, share

    mean = weighted_sum(measured())
    return extrapolation(squares, squared_norm(mean), epsilon)


def extrapolation(mean_square: float, square_of_mean: float, epsilon: float) -> float:
    """Return the step from ``sum_k p_k ||D_k||^2`` and ``||D||^2``; see `step_size`."""
    return max(1.0, mean_square / (2 * (square_of_mean + epsilon)))


@dataclass(frozen=True, eq=False)
class FedExP:
    """Extrapolate the mean update, the more the clients' updates disagree.

    With ``average_iterates`` the global weights, which are scored, are the mean of the last two
    iterates, and clients are sent the last one; the difference of the two is the server's state.
    """

    outermost: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = (ROLE, AHEAD)
    conflicts: ClassVar[Mapping[str, str]] = PLAIN_MEAN

    epsilon: Annotated[
        float,
        Field(gt=0, description="keeps the step finite when updates cancel"),
        Search(low=1e-3, high=1e-1, scale="log"),
    ] = 1e-3
    average_iterates: Annotated[
        bool,
        Field(description="score the mean of the last two iterates, as the released code does"),
    ] = True

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        return {KEY: zeros(ctx.model, weights)}

    @hookimpl
    def send_broadcast(
        self, ctx: ServerContext, state: ServerState, payload: Payload
    ) -> Mapping[str, Value]:
        ahead = state.entries.weights(KEY)
        sent = payload.weights()
        last = combined(torch.add, parameters(ctx.model, sent), ahead)
        return {**payload, "weights": {**sent, **last}}

    @hookimpl
    def receive_uploads(
        self, ctx: ServerContext, results: Iterator[ClientResult]
    ) -> Iterator[ClientResult]:
        squares, examples = list[float](), list[float]()
        for result in results:
            trained = parameters(ctx.model, result.uploads.weights())
            squares.append(squared_norm(difference(trained, result.sent.weights())))
            examples.append(result.examples)
            yield result
        ctx.scratch[KEY] = squares, examples

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, before: Weights
    ) -> ServerUpdate:
        start = combined(torch.add, parameters(ctx.model, before), state.entries.weights(KEY))
        update = difference(parameters(ctx.model, state.weights), start)
        squares, examples = ctx.scratch[KEY]
        shares = ctx.scratch.get(SHARES, examples)  # those of the mean in use
        square = sum(p * s for p, s in zip(shares, squares, strict=True)) / sum(shares)
        step = extrapolation(square, squared_norm(update), self.epsilon)
        share = 0.5 if self.average_iterates else 1.0
        weights = combined(lambda w, d: w + share * step * d, start, update)
        ahead = combined(lambda w, d: (1 - share) * step * d, start, update)
        return ServerUpdate(entries={KEY: ahead}, weights=weights, metrics={"fedexp.step": step})
