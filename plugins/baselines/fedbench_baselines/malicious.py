"""Which clients are malicious, the same for every attack of a run, and what all attacks share.

The malicious clients are drawn once per run, from a stream of their own: attacks of one seed are
made by the same clients, and clients and the server draw the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench import (
    ClientContext,
    ConfigError,
    Payload,
    Report,
    ServerContext,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)
from fedbench.random import Streams

from .fedavg import EXCHANGED

Clients: TypeAlias = Annotated[float, Field(ge=0, le=1)] | tuple[Annotated[int, Field(ge=0)], ...]
"""A share of all clients, or ids."""


def malicious(streams: Streams, num_clients: int, clients: float | Sequence[int]) -> list[int]:
    """Return the ids of the malicious clients, ascending.

    Args:
        streams: the run's random streams.
        num_clients: how many clients there are.
        clients: which share of them to draw, rounded to whole clients; or their ids. A larger share
            adds clients to those of a smaller one.

    Raises:
        ConfigError: for an id that no client has.
    """
    if isinstance(clients, int | float):
        order = torch.randperm(num_clients, generator=streams.torch("attacks/malicious"))
        return sorted(order[: int(clients * num_clients + 0.5)].tolist())
    unknown = sorted(set(clients) - set(range(num_clients)))
    if unknown:
        raise ConfigError(
            f"clients: there is no client {unknown[0]}; ids are from 0 to {num_clients - 1}"
        )
    return sorted(set(clients))


def parameters(model: nn.Module, weights: Weights) -> Weights:
    """Return the entries of ``weights`` that are parameters of ``model``.

    Attacks leave buffers alone: with a negative running variance, any model would fail at once.
    """
    return {name: weights[name] for name, _ in model.named_parameters() if name in weights}


def update_of(ctx: ClientContext, uploads: Payload) -> tuple[Weights, Weights]:
    """Return what a client received and what it trained: its parameters, by name, on the CPU.

    Parameters that it was not sent are its own, such as a personal classifier.

    Raises:
        PluginError: when the client does not send weights, or was not sent any.
    """
    sent = ctx.sent.weights()
    both = {name: w for name, w in uploads.weights().items() if name in sent}
    trained = parameters(ctx.model, both)
    return {name: sent[name].cpu() for name in trained}, trained


def with_weights(uploads: Payload, changed: Mapping[str, Tensor]) -> Mapping[str, Value]:
    """Return the uploads with some of the weights replaced."""
    return {**uploads, "weights": {**uploads.weights(), **changed}}


COLLUDING = "colluding attack"
"""The role of attacks by clients that see each other's uploads."""


@dataclass(frozen=True, eq=False)
class Attack:
    """What every attack has: its clients, and the numbers that record them.

    The metric ``NAME.malicious`` is how many of the round's clients are malicious, and
    ``NAME.client.ID`` is 1 for each of them.
    """

    # Honest plugins handle whatever a malicious client has made: they clip it, add noise, encode it
    # on the client, and decode it before colluding clients see each other's.
    outermost: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = ("attack",)
    setting: ClassVar[bool] = True
    name: ClassVar[str]

    clients: Annotated[
        Clients,
        Field(description="the malicious clients: which share of all to draw, or a list of ids"),
    ] = 0.2

    @hookimpl
    def run_start(self, ctx: ServerContext) -> None:
        malicious(ctx.streams, ctx.num_clients, self.clients)

    @hookimpl
    def server_update(self, ctx: ServerContext, reports: Sequence[Report]) -> ServerUpdate:
        theirs = malicious(ctx.streams, ctx.num_clients, self.clients)
        here = [report.client for report in reports if report.client in theirs]
        metrics = {f"{self.name}.client.{client}": 1.0 for client in here}
        return ServerUpdate(metrics={f"{self.name}.malicious": float(len(here)), **metrics})

    def attacks(self, ctx: ClientContext) -> bool:
        """Return whether the client of this turn is malicious."""
        return ctx.client in malicious(ctx.streams, ctx.num_clients, self.clients)


@dataclass(frozen=True, eq=False)
class WeightsAttack(Attack):
    """An attack on the weights that clients send."""

    conflicts: ClassVar[Mapping[str, str]] = EXCHANGED
