"""Clocks: how long clients take in virtual time, from what they do and how fast their devices are.

A turn takes ``examples / speed + (bytes down + bytes up) / bandwidth + latency`` seconds, where
``examples`` are all that it trained on, over epochs, passes and attempts, and the bytes are those
that really travel. The profiles differ in how speed and bandwidth vary from client to client. They
are drawn from named streams, so that they change no other number of the run.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fedbench import ClientContext, ServerContext, hookimpl
from fedbench.random import Streams
from fedbench.turns import Effort

SECONDS_PER_EXAMPLE = "clock.seconds_per_example"
"""Scratch key of a client's turn: how long its device takes to train on one example."""


@dataclass(frozen=True)
class Device:
    """A client's device.

    Args:
        speed: examples that it trains on per second.
        down: bytes that it receives per second.
        up: bytes that it sends per second.
    """

    speed: float
    down: float
    up: float

    def seconds(self, effort: Effort) -> float:
        """Return how long the device takes for a turn, without latency."""
        travel = effort.bytes_down / self.down + effort.bytes_up / self.up
        return effort.examples / self.speed + travel


@dataclass(frozen=True, eq=False)
class Clock:
    """What all clocks share: a turn takes its device's time, latency and jitter."""

    roles: ClassVar[tuple[str, ...]] = ("clock",)

    latency: Annotated[
        float, Field(ge=0, description="seconds that every turn takes besides, whatever it does")
    ] = 0.0
    jitter: Annotated[
        float,
        Field(
            ge=0,
            description="standard deviation of the logarithm of a factor, with median 1, that is "
            "drawn for every turn",
        ),
    ] = 0.0

    @abstractmethod
    def device(self, streams: Streams, client: int) -> Device:
        """Return a client's device, the same in every round."""

    @hookimpl
    def duration(self, ctx: ServerContext, effort: Effort) -> float:
        if not self.jitter:
            return self.elapsed(ctx.streams, effort)
        rng = ctx.streams.torch("clock/jitter", effort.round, effort.client)
        return self.elapsed(ctx.streams, effort, math.exp(self.jitter * normal(rng)))

    def elapsed(self, streams: Streams, effort: Effort, factor: float = 1.0) -> float:
        """Return how long a turn takes, its work and travels ``factor`` times as long."""
        return (self.latency + self.device(streams, effort.client).seconds(effort)) * factor

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        device = self.device(ctx.streams, ctx.client)
        ctx.scratch[SECONDS_PER_EXAMPLE] = 1 / device.speed
        return (yield)


@dataclass(frozen=True, eq=False)
class Constant(Clock):
    """Give all clients the same device."""

    speed: Annotated[float, Field(gt=0, description="examples trained on per second")] = 100.0
    bandwidth: Annotated[
        float, Field(gt=0, description="megabytes per second, in either direction")
    ] = 1.0

    def device(self, streams: Streams, client: int) -> Device:
        """Return the same device for every client."""
        return self._slower(1.0, 1.0)

    def _slower(self, computing: float, travelling: float) -> Device:
        """Return a device that is slower by these factors than ``speed`` and ``bandwidth`` say."""
        bytes_per_second = 1e6 * self.bandwidth / travelling
        return Device(self.speed / computing, bytes_per_second, bytes_per_second)


@dataclass(frozen=True, eq=False)
class LogNormal(Constant):
    """Draw each client's speed and bandwidth, independently, around these medians."""

    sigma: Annotated[
        float,
        Field(
            ge=0, description="standard deviation of the logarithm; 1: a tenth are 3.6 times slower"
        ),
    ] = 1.0

    def device(self, streams: Streams, client: int) -> Device:
        """Return the client's device."""
        rng = streams.torch("clock/device", client=client)
        return self._slower(*(math.exp(self.sigma * normal(rng)) for _ in range(2)))


@dataclass(frozen=True, eq=False)
class TwoClass(Constant):
    """Let a share of the clients, drawn by seed, be slower by one factor in everything."""

    slow: Annotated[float, Field(ge=0, le=1, description="share of slow clients")] = 0.3
    factor: Annotated[float, Field(ge=1, description="how many times longer slow clients take")] = (
        5.0
    )

    def device(self, streams: Streams, client: int) -> Device:
        """Return the client's device."""
        rng = streams.torch("clock/device", client=client)
        slow = float(torch.rand((), generator=rng, dtype=torch.float64)) < self.slow
        return self._slower(*[self.factor if slow else 1.0] * 2)


def normal(rng: torch.Generator) -> float:
    """Return a standard normal number."""
    return float(torch.randn((), generator=rng, dtype=torch.float64))
