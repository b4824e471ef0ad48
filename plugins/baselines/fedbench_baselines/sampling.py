"""Client sampling: which clients take part in a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench.context import ServerContext
from fedbench.hookspecs import hookimpl


@dataclass(frozen=True, eq=False)
class Uniform:
    """Draw a share of the clients uniformly, without replacement; 1.0 selects all of them."""

    fraction: Annotated[
        float, Field(gt=0, le=1, description="share of the clients in each round")
    ] = 1.0

    @hookimpl
    def select_clients(self, ctx: ServerContext) -> Sequence[int]:
        size = max(1, round(self.fraction * ctx.num_clients))
        order = torch.randperm(ctx.num_clients, generator=ctx.rng("select_clients"))
        chosen: list[int] = order[:size].tolist()
        return chosen


@dataclass(frozen=True, eq=False)
class BySize:
    """Draw a share of the clients in proportion to their sizes, without replacement.

    Of the clients that are left, each draw takes one by its number of training examples. With a
    plain mean (``mean.weights: uniform``) this is the sampling scheme that FedProx and q-FedAvg
    describe (Li et al., MLSys and ICLR 2020).
    """

    fraction: Annotated[
        float, Field(gt=0, le=1, description="share of the clients in each round")
    ] = 0.1

    @hookimpl
    def select_clients(self, ctx: ServerContext) -> Sequence[int]:
        size = max(1, round(self.fraction * ctx.num_clients))
        shares = torch.tensor(ctx.client_sizes, dtype=torch.float64)
        chosen: list[int] = torch.multinomial(
            shares, size, generator=ctx.rng("select_clients")
        ).tolist()
        return chosen
