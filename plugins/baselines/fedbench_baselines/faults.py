"""Clients that fail on purpose: dropped, crashed, late, stale and broken ones, by rate and seed.

One draw per round, client and attempt decides. It has its own random stream, so no other number of
the run changes, and a retry draws again. A turn has at most one fault.

Clients of deployed systems fail in these ways: they drop out or miss the deadline of a round
(Bonawitz et al., Towards Federated Learning at Scale, MLSys 2019), or they send updates from old
weights (Xie et al., Asynchronous Federated Optimization, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import Batch, ClientContext, PerClass, Value, hookimpl
from fedbench.failures import ClientFailed
from fedbench.types import Encoded, Payload

KINDS = ("drop", "crash", "delay", "stale", "nan")
SCRATCH, STATE = "faults", "faults.received"

Rate = Annotated[float, Field(ge=0, le=1)]


def draw(rates: tuple[float, ...], generator: torch.Generator) -> int | None:
    """Return an index into ``rates``, each with its rate as probability, otherwise ``None``."""
    point = float(torch.rand((), generator=generator, dtype=torch.float64))
    for index, rate in enumerate(rates):
        point -= rate
        if point < 0:
            return index
    return None


def spoiled(value: Value) -> Value:
    """Return ``value`` with every element of its floating-point tensors set to NaN."""
    if isinstance(value, Tensor):
        return _spoiled(value)
    if isinstance(value, PerClass):
        return PerClass(value.labels, _spoiled(value.values), value.counts)
    if isinstance(value, Encoded):
        return replace(value, parts={n: _spoiled(part) for n, part in value.parts.items()})
    return {name: _spoiled(tensor) for name, tensor in value.items()}


def _spoiled(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor


@dataclass(frozen=True, eq=False)
class Faults:
    """Let clients fail at given rates; ``failures.policy`` decides what the round does about it.

    A client that drops out, crashes, is late or uploads NaN has failed, and under the policy
    ``fail`` it ends the run. The update of a stale client is used, because a server cannot tell
    that it is stale; it is counted as ``stale``. This plugin is always the first of a run, so that
    it acts on everything that the others receive and send.

    Raises:
        ValueError: if the rates add up to more than 1.
    """

    # It acts on whatever other plugins send and receive, so it requires none of them.
    outermost: ClassVar[bool] = True

    drop: Annotated[
        Rate, Field(description="rate of clients that never answer: they train and send nothing")
    ] = 0.0
    crash: Annotated[
        Rate, Field(description="rate of clients that crash in their first training step")
    ] = 0.0
    delay: Annotated[
        Rate,
        Field(
            description="rate of stragglers: they train, but answer after the end of the round, "
            "and their update is discarded"
        ),
    ] = 0.0
    stale: Annotated[
        Rate,
        Field(
            description="rate of clients that work on what they received in their last turn "
            "instead of this round's broadcast; never in a client's first turn"
        ),
    ] = 0.0
    nan: Annotated[Rate, Field(description="rate of clients whose uploads are all NaN")] = 0.0

    def __post_init__(self) -> None:
        if math.fsum(self._rates) > 1:  # rounded once: 0.79 + 0.07 + 0.04 + 0.1 is 1
            raise ValueError(f"the rates of {', '.join(KINDS)} add up to more than 1")

    @property
    def _rates(self) -> tuple[float, ...]:
        return tuple(getattr(self, kind) for kind in KINDS)

    @hookimpl
    def receive_broadcast(self, ctx: ClientContext, payload: Payload) -> Mapping[str, Value]:
        index = draw(self._rates, ctx.rng(f"faults/{ctx.attempt}"))
        fault = ctx.scratch[SCRATCH] = KINDS[index] if index is not None else None
        if fault == "drop":
            raise ClientFailed("dropped", "dropped out")
        if not self.stale:
            return payload
        head = f"{STATE}/"
        kept = {k.removeprefix(head): ctx.state[k] for k in ctx.state if k.startswith(head)}
        ctx.state.update({head + key: payload[key] for key in payload})
        if fault != "stale" or not kept:
            return payload
        ctx.fault("stale", "worked on the broadcast of its last turn")
        return kept

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        if ctx.scratch[SCRATCH] == "crash":
            raise ClientFailed("crashed", "crashed in training")
        if ctx.scratch[SCRATCH] == "delay":
            raise ClientFailed("late", "answered too late")
        return trained

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        if ctx.scratch[SCRATCH] != "nan":
            return uploads
        return {key: spoiled(value) for key, value in uploads.items()}

    @hookimpl
    def after_backward(self, ctx: ClientContext, batch: Batch) -> None:
        if ctx.scratch.get(SCRATCH) == "crash":
            raise ClientFailed("crashed", "crashed in training")
