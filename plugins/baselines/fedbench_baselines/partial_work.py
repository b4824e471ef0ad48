"""Partial work: slow clients train for fewer epochs instead of holding up the round.

FedProx's experiments (Li et al., MLSys 2020) let stragglers do a random number of epochs, and
TimelyFL (Zhang et al., WACV 2023) as many as fit into the round; TimelyFL's training of only some
layers is not part of this. FedNova (Wang et al., NeurIPS 2020) weighs such updates by their steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench import ClientContext, ConfigError, hookimpl

from .clocks import SECONDS_PER_EXAMPLE


@dataclass(frozen=True, eq=False)
class PartialWork:
    """Let each client train for its own number of epochs, up to the trainer's.

    In every round, a share of the clients draws it uniformly between ``least`` and the trainer's
    number. With ``seconds``, it is what the client's device can compute in that virtual time, and
    ``least`` at least.
    """

    least: Annotated[int, Field(ge=1, description="epochs of a client at least")] = 1
    share: Annotated[
        float, Field(ge=0, le=1, description="share of clients that do partial work")
    ] = 1.0
    seconds: Annotated[
        float | None,
        Field(gt=0, description="virtual seconds to compute in, instead of a random number"),
    ] = None

    @hookimpl
    def client_update(self, ctx: ClientContext) -> bool:
        work = ctx.train(epochs=lambda most: self.epochs(ctx, most))
        ctx.metric("partial_work.steps", work.steps)
        return True

    def epochs(self, ctx: ClientContext, most: int) -> int:
        """Return how many epochs the client trains for, if the trainer's number is ``most``."""
        rng = ctx.rng("partial_work")
        least = min(self.least, most)
        if float(torch.rand((), generator=rng, dtype=torch.float64)) >= self.share:
            return most
        if self.seconds is None:
            return least + int(torch.randint(most + 1 - least, (), generator=rng))
        if SECONDS_PER_EXAMPLE not in ctx.scratch:
            raise ConfigError("partial_work.seconds needs a clock that tells devices their speed")
        epoch: float = len(ctx.data) * ctx.scratch[SECONDS_PER_EXAMPLE]
        return max(least, min(most, math.floor(self.seconds / epoch)))
