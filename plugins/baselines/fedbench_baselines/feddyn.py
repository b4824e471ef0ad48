"""FedDyn: each client's objective changes with its past, so that local and global optima agree.

Acar, Zhao, Matas, Mattina, Whatmough, Saligrama: Federated Learning Based on Dynamic
Regularization, ICLR 2021.

A client minimises ``F_k(w) - <q_k, w> + alpha/2 * ||w - w_t||^2``; its gradient state ``q_k`` and
the server's ``h`` start at zero and are shaped like the parameters. A client that misses rounds
keeps its ``q_k``. Means over clients are plain.

The released code keeps ``-q_k / alpha`` instead of ``q_k``, and its server step is then the same.
It scores the mean of the clients' last models, not the model from which clients start, which is the
one computed here. The paper's text was not re-read. Some public code adds the norm without the
square. When clients take part rarely, ``h`` may drift far; this is a property of the method.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import (
    ClientContext,
    ConfigError,
    Report,
    Search,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)

from .fedavg import SHARES
from .server_steps import PLAIN_MEAN, ROLE, parameters, zeros
from .vectors import combined, squared_norm

KEY, STATE = "feddyn.h", "feddyn.gradient"


def dynamic_term(
    params: Iterable[Tensor], anchor: Iterable[Tensor], gradient: Iterable[Tensor], alpha: float
) -> Tensor:
    """Return ``-<q, w> + alpha/2 * ||w - w_t||^2`` over all parameters, a scalar.

    Args:
        params: the local trainable parameters w.
        anchor: the received parameters w_t, in the same order, without gradient.
        gradient: the client's gradient state q, in the same order, without gradient.
        alpha: strength of the regulariser, > 0.
    """
    terms = [
        alpha / 2 * (w - a).square().sum() - (q * w).sum()
        for w, a, q in zip(params, anchor, gradient, strict=True)
    ]
    return torch.stack(terms).sum()


def client_gradient(
    gradient: Weights, trained: Weights, received: Weights, alpha: float
) -> Weights:
    """Return the client's new gradient state, ``q_k - alpha * (w_k - w_t)``.

    Args:
        gradient: q_k, trainable parameters by name, as all others.
        trained: w_k, at the end of the turn.
        received: w_t.
        alpha: as in `dynamic_term`.
    """
    return combined(lambda q, w, a: q - alpha * (w - a), gradient, trained, received)


def server_step(
    h: Weights,
    mean: Weights,
    received: Weights,
    participants: int,
    num_clients: int,
    alpha: float,
) -> tuple[Weights, Weights]:
    """Return the new global weights and the server's new state.

    The state is ``h - alpha / N * sum_k (w_k - w_t)`` over the round's clients; the weights are
    ``mean_k w_k - h_new / alpha``.

    Args:
        h: the server's state, trainable parameters by name, as all others.
        mean: the plain mean of the round's w_k.
        received: w_t.
        participants: the number of clients in ``mean``.
        num_clients: N, all clients, whether or not they took part in the round.
        alpha: as in `dynamic_term`.
    """
    share = participants / num_clients
    new = combined(lambda s, m, w: s - alpha * share * (m - w), h, mean, received)
    return combined(lambda m, s: m - s / alpha, mean, new), new


@dataclass(frozen=True, eq=False)
class FedDyn:
    """Regularise each client by its past gradients; correct the mean by their sum."""

    outermost: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = PLAIN_MEAN

    alpha: Annotated[
        float,
        Field(gt=0, description="strength of the regulariser"),
        Search(choices=(0.001, 0.01, 0.1)),
    ] = 0.01

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        return {KEY: zeros(ctx.model, weights)}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        received = {name: p.detach().clone() for name, p in ctx.model.named_parameters()}
        kept = ctx.state.get(STATE)
        zero = {name: torch.zeros_like(w) for name, w in received.items()}
        own = {n: g.to(ctx.device) for n, g in kept.items()} if isinstance(kept, Mapping) else zero
        ctx.scratch[STATE] = received, own
        trained = yield
        now = {name: p.detach() for name, p in ctx.model.named_parameters()}
        ctx.state[STATE] = client_gradient(own, now, received, self.alpha)
        return trained

    @hookimpl
    def local_loss(self, ctx: ClientContext) -> Mapping[str, Tensor]:
        if STATE not in ctx.scratch:  # outside of a turn nothing is received
            return {}
        received, gradient = ctx.scratch[STATE]
        params = ctx.model.parameters()
        term = dynamic_term(params, received.values(), gradient.values(), self.alpha)
        return {"feddyn": term}

    @hookimpl
    def server_update(
        self,
        ctx: ServerContext,
        state: ServerState,
        before: Weights,
        reports: Sequence[Report],
    ) -> ServerUpdate:
        if len({*ctx.scratch.get(SHARES, ())}) > 1:
            raise ConfigError(
                "feddyn's server state is a sum over clients that count alike; set "
                "mean.weights=uniform"
            )
        mean, old = parameters(ctx.model, state.weights), parameters(ctx.model, before)
        clients = len(reports), ctx.num_clients
        weights, h = server_step(state.entries.weights(KEY), mean, old, *clients, self.alpha)
        norm = squared_norm(h) ** 0.5
        return ServerUpdate(entries={KEY: h}, weights=weights, metrics={"feddyn.h_norm": norm})
