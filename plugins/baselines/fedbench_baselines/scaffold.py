"""SCAFFOLD: control variates correct each local step for the drift of the client.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning, ICML 2020.

A local step uses ``g(y) - c_k + c`` instead of the gradient ``g(y)``. Here ``c_k`` is the client's
control variate and ``c`` the server's; both are zero at the start and shaped like the parameters. A
client that misses rounds keeps its ``c_k``. Means are plain, and the server's variate is divided by
the number of all clients, not of the round's cohort.

No code by the authors was found, and the paper's text was not re-read. Some public versions start
from random control variates, divide by the steps of a single epoch or by a learning rate that was
not the one in use, or move ``c`` while the round's clients are still computing; ours does none of
these.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import (
    ClientContext,
    ClientResult,
    Search,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)

from .fedsam import ANEW
from .server_steps import PLAIN_MEAN, ROLE, parameters, zeros
from .vectors import combined, weighted_sum

VARIATE, DELTA, COUNT = "scaffold.variate", "scaffold.delta", "scaffold.gradients"


def control_variate(
    client: Weights, server: Weights, received: Weights, trained: Weights, steps: int, lr: float
) -> Weights:
    """Return the client's new control variate, the paper's option II.

    It is ``c_k - c + (w_t - y) / (steps * lr)``. Under plain SGD this equals the mean of the raw
    minibatch gradients of the turn, that is, of ``g(y)`` before the correction. That mean needs
    neither ``steps`` nor ``lr`` and stays right with momentum and learning rate schedules, where
    this formula is wrong (with momentum rho it is too large by about ``1 / (1 - rho)``). Weight
    decay inside the optimiser is part of this formula but not of that mean.

    Args:
        client: c_k, trainable parameters by name, as all others.
        server: c, as received.
        received: w_t.
        trained: y, after the turn.
        steps: local steps of the turn, over all its epochs; at least 1.
        lr: the learning rate of these steps, > 0.
    """

    def formula(c_k: Tensor, c: Tensor, w: Tensor, y: Tensor) -> Tensor:
        return c_k - c + (w - y) / (steps * lr)

    return combined(formula, client, server, received, trained)


def server_variate(server: Weights, deltas: Iterable[Weights], num_clients: int) -> Weights:
    """Return the server's new control variate, ``c + 1/N * sum_k (c_k_new - c_k)``.

    Args:
        server: c.
        deltas: each cohort client's change of its control variate; read once.
        num_clients: N, all clients, whether or not they took part in the round.
    """
    changes = ((delta, 1 / num_clients) for delta in deltas)
    return weighted_sum(chain([(server, 1.0)], changes))


@dataclass(frozen=True, eq=False)
class Scaffold:
    """Correct every local step by control variates; twice the bytes of FedAvg each way.

    The client's new variate is the mean of the turn's raw minibatch gradients, which equals
    `control_variate` under plain SGD. Weight decay inside the optimiser is not part of it.
    """

    outermost: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = {
        **PLAIN_MEAN,
        ANEW: "the new gradient lacks the control variates",
    }

    lr: Annotated[
        float,
        Field(gt=0, description="the server's learning rate"),
        Search(low=0.1, high=1, scale="log"),
    ] = 1.0

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        return {VARIATE: zeros(ctx.model, weights)}

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {VARIATE: state.entries[VARIATE]}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        server = ctx.payload.weights(VARIATE)
        kept: Any = ctx.state.get(VARIATE)
        own = {n: kept[n].to(c) if kept else torch.zeros_like(c) for n, c in server.items()}
        sums = {name: torch.zeros_like(c) for name, c in server.items()}
        ctx.scratch[VARIATE] = {name: c - own[name] for name, c in server.items()}
        ctx.scratch[DELTA], ctx.scratch[COUNT] = sums, 0
        trained = yield
        count = ctx.scratch[COUNT]  # not the steps: a trainer may take several gradients in one
        new = {name: total / count for name, total in sums.items()}
        ctx.state[VARIATE] = new
        ctx.upload(DELTA, {name: value - own[name] for name, value in new.items()})
        return trained

    @hookimpl
    def after_backward(self, ctx: ClientContext) -> None:
        ctx.scratch[COUNT] += 1
        for name, parameter in ctx.model.named_parameters():
            if parameter.grad is not None and name in ctx.scratch[DELTA]:
                ctx.scratch[DELTA][name] += parameter.grad
                parameter.grad += ctx.scratch[VARIATE][name]

    @hookimpl
    def receive_uploads(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Iterator[ClientResult]:
        total = {n: c.double().zero_() for n, c in state.entries.weights(VARIATE).items()}
        for result in results:
            for name, delta in result.uploads.weights(DELTA).items():
                total[name] += delta  # in place: memory stays flat
            yield result.with_uploads({k: v for k, v in result.uploads.items() if k != DELTA})
        ctx.scratch[DELTA] = total

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, before: Weights
    ) -> ServerUpdate:
        variate = server_variate(
            state.entries.weights(VARIATE), [ctx.scratch[DELTA]], ctx.num_clients
        )
        mean, old = parameters(ctx.model, state.weights), parameters(ctx.model, before)
        moved = combined(lambda m, w: m + (self.lr - 1) * (m - w), mean, old)
        return ServerUpdate(entries={VARIATE: variate}, weights=moved)
