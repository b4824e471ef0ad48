"""FedACG: the server sends its weights moved ahead by its momentum, and clients stay near them.

Kim, Kim, Han: Communication-Efficient Federated Learning with Accelerated Client Gradient, CVPR
2024.

Clients start from ``w_t + factor * m`` and add ``beta * ||w - (w_t + factor * m)||^2``, which is
``2 * beta`` times `.fedprox.proximal_term`: there is no factor 1/2. The new global weights are the
plain mean of the clients' weights. From the released code: the model that is scored is ``w``, not
the one moved ahead. The paper's text was not re-read.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fedbench import (
    ClientContext,
    Payload,
    Search,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)

from .fedprox import proximal_term
from .server_steps import AHEAD, PLAIN_MEAN, ROLE, parameters, zeros
from .vectors import combined

KEY = "fedacg.momentum"


def server_momentum(momentum: Weights, mean: Weights, lookahead: Weights, factor: float) -> Weights:
    """Return the new momentum, ``factor * m + mean_k w_k - (w_t + factor * m)``.

    It equals ``mean_k w_k - w_t``: the momentum is the last movement of the global weights.

    Args:
        momentum: m, trainable parameters by name, as all others; zero at the start.
        mean: the plain mean of the round's w_k.
        lookahead: ``w_t + factor * m``, which the clients received.
        factor: lambda, in [0, 1).
    """
    return combined(lambda m, w, ahead: factor * m + w - ahead, momentum, mean, lookahead)


@dataclass(frozen=True, eq=False)
class FedAcg:
    """Send the weights moved ahead by the server's momentum, and keep clients near them."""

    outermost: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = (ROLE, AHEAD)
    conflicts: ClassVar[Mapping[str, str]] = PLAIN_MEAN

    factor: Annotated[
        float,
        Field(ge=0, lt=1, description="share of the momentum to move ahead, lambda"),
        Search(choices=(0.7, 0.85, 0.95)),
    ] = 0.85
    beta: Annotated[
        float,
        Field(ge=0, description="weight of the local term"),
        Search(low=1e-4, high=1e-1, scale="log"),
    ] = 1e-3

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        return {KEY: zeros(ctx.model, weights)}

    @hookimpl
    def send_broadcast(
        self, ctx: ServerContext, state: ServerState, payload: Payload
    ) -> Mapping[str, Value]:
        sent = payload.weights()
        return {**payload, "weights": {**sent, **self._ahead(ctx, state, sent)}}

    def _ahead(self, ctx: ServerContext, state: ServerState, weights: Weights) -> Weights:
        momentum = state.entries.weights(KEY)
        own = parameters(ctx.model, weights)
        return combined(lambda w, m: w + self.factor * m, own, momentum)

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        ctx.scratch[KEY] = [p.detach().clone() for p in ctx.model.parameters()]
        return (yield)

    @hookimpl
    def local_loss(self, ctx: ClientContext) -> Mapping[str, Tensor]:
        if KEY not in ctx.scratch:  # outside of a turn nothing is received
            return {}
        term = proximal_term(ctx.model.parameters(), ctx.scratch[KEY])
        return {"fedacg": 2 * self.beta * term}

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, before: Weights
    ) -> ServerUpdate:
        ahead = self._ahead(ctx, state, before)
        mean, momentum = parameters(ctx.model, state.weights), state.entries.weights(KEY)
        return ServerUpdate(entries={KEY: server_momentum(momentum, mean, ahead, self.factor)})
