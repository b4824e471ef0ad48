"""Schedules: when a round ends in virtual time, and how updates count that come late.

Sources: over-selection and deadlines, Bonawitz et al., Towards Federated Learning at Scale, MLSys
2019; buffered, Nguyen et al., Federated Learning with Buffered Asynchronous Aggregation (FedBuff),
AISTATS 2022; asynchronous and the three weights, Xie, Koyejo, Gupta, Asynchronous Federated
Optimization (FedAsync), 2019. Formulas are as remembered; the papers' texts were not re-read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fedbench import ClientResult, ConfigError, Payload, ServerContext, ServerState, hookimpl
from fedbench.turns import Pace

from .robust import ROLE as ROBUST

OVERLAPPING = "overlapping rounds"
"""The role of schedules under which clients answer in a later round than the one they started in.

Plugins that need each round to be a sample of clients of its own state it as ``conflicts``.
"""


def staleness_weight(
    staleness: int, form: Literal["constant", "polynomial", "hinge"], a: float, b: float
) -> float:
    """Return how much an update counts that is some rounds late; 1 for one that is not.

    Constant: 1. Polynomial: ``(1 + staleness) ** -a``. Hinge: 1 up to b rounds, then
    ``1 / (a * (staleness - b) + 1)``.
    """
    if form == "polynomial":
        return math.pow(1 + staleness, -a)
    if form == "hinge" and staleness > b:
        return 1 / (a * (staleness - b) + 1)
    return 1.0


@dataclass(frozen=True, eq=False)
class _Late:
    """What schedules share whose clients may answer in a later round.

    A late client's weights are moved to the current model before anybody aggregates them: the
    current weights plus its update times a weight. Aggregators and server optimisers then treat it
    like one of this round. Buffers, such as batch-norm statistics, move towards the client's own,
    because they cannot be added. What a client sends besides its weights is used as it is.
    """

    outermost: ClassVar[bool] = True

    staleness: Annotated[
        Literal["constant", "polynomial", "hinge"],
        Field(description="how the weight of an update falls with the rounds that it is late"),
    ] = "polynomial"
    a: Annotated[float, Field(ge=0, description="a of polynomial and hinge")] = 0.5
    b: Annotated[float, Field(ge=0, description="rounds before the hinge")] = 4.0

    def weight(self, staleness: int) -> float:
        """Return how much an update counts that is ``staleness`` rounds late."""
        return staleness_weight(staleness, self.staleness, self.a, self.b)

    @hookimpl
    def receive_uploads(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Iterator[ClientResult]:
        for result in results:
            weight = self.weight(result.staleness)
            on_time = result.staleness == 0 and weight == 1
            if on_time or "weights" not in result.uploads:
                yield result
            else:
                yield self._moved(ctx, state, result, weight)

    def _moved(
        self, ctx: ServerContext, state: ServerState, result: ClientResult, weight: float
    ) -> ClientResult:
        now = {**state.weights, **ctx.sent.get("weights", {})}
        then = {**state.weights, **result.sent.get("weights", {})}
        added = {name for name, _ in ctx.model.named_parameters()}
        trained = result.uploads.weights()
        moved = {
            name: moved_weight(now[name], then[name] if name in added else now[name], w, weight)
            for name, w in trained.items()
        }
        sent = Payload({**result.sent, "weights": now}, "the broadcast")
        return replace(result.with_uploads({**result.uploads, "weights": moved}), sent=sent)


def moved_weight(now: Tensor, then: Tensor, trained: Tensor, weight: float) -> Tensor:
    """Return ``now + weight * (trained - then)``, rounded once; integers are ``trained``."""
    if not trained.is_floating_point():
        return trained
    update = trained.double() - then.double()
    return (now.double() + weight * update).to(trained.dtype)


@dataclass(frozen=True, eq=False)
class Deadline:
    """End a round after some seconds, and drop the clients that have not answered.

    A round without results ends with the first ones after its deadline.
    """

    seconds: Annotated[float, Field(gt=0, description="virtual seconds that a round may take")]

    @hookimpl
    def schedule(self) -> Pace:
        return Pace(seconds=self.seconds)


@dataclass(frozen=True, eq=False, kw_only=True)
class SoftDeadline(_Late):
    """End a round after some seconds; clients that are late go on, and count less when they answer.

    A round without results ends with the first ones after its deadline.
    """

    roles: ClassVar[tuple[str, ...]] = (OVERLAPPING,)

    seconds: Annotated[float, Field(gt=0, description="virtual seconds that a round may take")]

    @hookimpl
    def schedule(self) -> Pace:
        return Pace(seconds=self.seconds, late="kept")


@dataclass(frozen=True, eq=False)
class OverSelect:
    """Ask more clients than are needed, wait for the first ones, and drop the others."""

    extra: Annotated[
        float,
        Field(
            gt=0,
            description="how many more clients are selected than are waited for, as a share of the "
            "latter",
        ),
    ] = 0.3

    @hookimpl
    def schedule(self, ctx: ServerContext) -> Pace:
        return Pace(results=max(1, round(len(ctx.cohort) / (1 + self.extra))))


@dataclass(frozen=True, eq=False)
class Buffered(_Late):
    """Update the model with every ``size`` results in the order in which they arrive (FedBuff).

    Always ``at_work`` clients are at work, each on the model of the time at which it started.
    """

    roles: ClassVar[tuple[str, ...]] = (OVERLAPPING,)

    size: Annotated[
        int | None,
        Field(
            ge=1, description="results per update, K; default a quarter of the clients, up to 10"
        ),
    ] = None
    at_work: Annotated[
        int | None, Field(ge=1, description="clients at work together; default twice size")
    ] = None

    @hookimpl
    def run_start(self, ctx: ServerContext) -> None:
        if self.size is not None and self.size > ctx.num_clients:
            raise ConfigError(
                f"buffered.size is {self.size}, and a client is in an update once at most: there "
                f"are {ctx.num_clients} clients"
            )

    @hookimpl
    def schedule(self, ctx: ServerContext) -> Pace:
        size = self.size or min(10, math.ceil(ctx.num_clients / 4))
        return Pace(results=size, at_work=self.at_work or 2 * size, late="kept")


@dataclass(frozen=True, eq=False)
class Asynchronous(_Late):
    """Update the model with every single result, mixed into it (FedAsync).

    The new weights are ``(1 - m) * current + m * client's``, with m the option ``mixing`` times the
    weight for staleness.
    """

    roles: ClassVar[tuple[str, ...]] = (OVERLAPPING,)
    conflicts: ClassVar[Mapping[str, str]] = {
        ROBUST: "an update is of one client, and a robust mean of one client is that client"
    }

    mixing: Annotated[
        float, Field(gt=0, le=1, description="how much of an update that is not late is mixed in")
    ] = 0.6
    at_work: Annotated[int, Field(ge=1, description="clients at work together")] = 10

    def weight(self, staleness: int) -> float:
        """Return how much is mixed in of an update that is ``staleness`` rounds late."""
        return self.mixing * super().weight(staleness)

    @hookimpl
    def schedule(self) -> Pace:
        return Pace(results=1, at_work=self.at_work, late="kept")

    def _moved(
        self, ctx: ServerContext, state: ServerState, result: ClientResult, weight: float
    ) -> ClientResult:
        # FedAsync mixes models: the difference is to the current one, not to what was received.
        return super()._moved(ctx, state, replace(result, sent=ctx.sent), weight)
