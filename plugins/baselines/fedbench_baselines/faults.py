"""Clients that fail on purpose: dropped, crashed, late, stale and broken ones, by rate and seed.

One draw for each round, client and attempt decides, from a stream of its own: every other number of
the run stays, and a retry draws anew. At most one fault happens in a turn.

What clients of a deployed system do: dropping out and missing the deadline of a round are those of
Bonawitz et al., Towards Federated Learning at Scale, MLSys 2019; updates from old weights those of
Xie et al., Asynchronous Federated Optimization, 2019.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import Batch, ClientContext, PerClass, Value, hookimpl
from fedbench.failures import ClientFailed
from fedbench.types import Received

KINDS = ("drop", "crash", "delay", "stale", "nan")
SCRATCH, STATE = "faults", "faults.received"

Rate = Annotated[float, Field(ge=0, le=1)]


def draw(rates: tuple[float, ...], generator: torch.Generator) -> int | None:
    """Return the index of one of ``rates`` with that probability, ``None`` with what is left."""
    point = float(torch.rand((), generator=generator, dtype=torch.float64))
    for index, rate in enumerate(rates):
        point -= rate
        if point < 0:
            return index
    return None


def spoiled(value: Value) -> Value:
    """Return ``value`` with NaN in every element of its floating-point tensors."""
    if isinstance(value, Tensor):
        return _spoiled(value)
    if isinstance(value, PerClass):
        return PerClass(value.labels, _spoiled(value.values), value.counts)
    return {name: _spoiled(tensor) for name, tensor in value.items()}


def _spoiled(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor


@dataclass(frozen=True, eq=False)
class Faults:
    """Let clients fail at given rates; ``failures.policy`` says what the round does about it.

    A dropped, crashed or late client and one that uploads NaN fail (under ``fail`` they end the
    run). A stale client's update is used, as a server can't tell; it is counted as ``stale``.
    Always the first plugin of a run, so that it acts on what all others receive and send.

    Raises:
        ValueError: when the rates add up to more than 1.
    """

    # It works on what other plugins send and receive, whichever they are: it requires none.
    outermost: ClassVar[bool] = True

    drop: Annotated[
        Rate, Field(description="rate of clients that never answer: nothing is trained or sent")
    ] = 0.0
    crash: Annotated[
        Rate, Field(description="rate of clients that end in their first training step")
    ] = 0.0
    delay: Annotated[
        Rate,
        Field(
            description="rate of stragglers: they train, but answer after the round's end, so "
            "that their update is thrown away"
        ),
    ] = 0.0
    stale: Annotated[
        Rate,
        Field(
            description="rate of clients that work on what they received in their last turn "
            "instead of this round's broadcast; not in a client's first turn"
        ),
    ] = 0.0
    nan: Annotated[Rate, Field(description="rate of clients whose uploads are all NaN")] = 0.0

    def __post_init__(self) -> None:
        if sum(self._rates) > 1:
            raise ValueError(f"the rates of {', '.join(KINDS)} add up to more than 1")

    @property
    def _rates(self) -> tuple[float, ...]:
        return tuple(getattr(self, kind) for kind in KINDS)

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        index = draw(self._rates, ctx.rng(f"faults/{ctx.attempt}"))
        fault = KINDS[index] if index is not None else None
        ctx.scratch[SCRATCH] = fault
        if fault == "drop":
            raise ClientFailed("dropped", "dropped out")
        if self.stale:
            self._keep_or_swap_broadcast(ctx, fault == "stale")
        trained = yield
        if fault == "crash":
            raise ClientFailed("crashed", "crashed in training")
        if fault == "delay":
            raise ClientFailed("late", "answered too late")
        if fault == "nan":
            for key, value in list(ctx.uploads.items()):
                ctx.upload(key, spoiled(value), replace=True)
        return trained

    def _keep_or_swap_broadcast(self, ctx: ClientContext, stale: bool) -> None:
        """Keep what this turn received for a later stale one, or go back to what was kept."""
        head = f"{STATE}/"
        kept = {k.removeprefix(head): v for k, v in ctx.state.items() if k.startswith(head)}
        ctx.state.update({head + key: ctx.payload[key] for key in ctx.payload})
        if stale and kept:
            ctx.payload = Received(kept, ctx.device)
            if "weights" in kept:
                ctx.model.load_state_dict(ctx.payload.weights())
            ctx.fault("stale", "worked on the broadcast of its last turn")

    @hookimpl
    def after_backward(self, ctx: ClientContext, batch: Batch) -> None:
        if ctx.scratch.get(SCRATCH) == "crash":
            raise ClientFailed("crashed", "crashed in training")
