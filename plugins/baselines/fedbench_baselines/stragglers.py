"""Stragglers: selected clients that have no time for all local epochs, as in FedProx's experiments.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks,
MLSys 2020, section 5.2, and the released code: in every round a fixed share of the selected clients
are stragglers. FedAvg drops them; FedProx lets them make fewer epochs, their number drawn uniformly
from 1 to E - 1.

The plugin partial_work draws for each client alone. Here the number of stragglers is exact, so
that no round is empty, and the same clients can be dropped.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench import ClientContext, Payload, ServerContext, Value, hookimpl

KEY = "stragglers"


def partial_epochs(share: float, epochs: int) -> int:
    """Return the epochs of a straggler: uniform over 1 to ``epochs - 1`` for uniform ``share``.

    Args:
        share: in [0, 1).
        epochs: the trainer's; a client that makes a single epoch makes it whole.
    """
    return 1 + int(share * (epochs - 1)) if epochs > 1 else 1


def draw(selected: Sequence[int], share: float, rng: torch.Generator) -> dict[int, float]:
    """Draw the stragglers among the selected clients.

    Args:
        selected: client ids, ascending; none when clients' own models are scored.
        share: of the selected clients, rounded; at least one client is no straggler.
        rng: the stream to draw from.

    Returns:
        straggler -> a number in [0, 1), which decides how much it manages.
    """
    number = max(0, min(round(share * len(selected)), len(selected) - 1))
    order = torch.randperm(len(selected), generator=rng)[:number].tolist()
    shares = torch.rand(number, generator=rng, dtype=torch.float64).tolist()
    return {selected[place]: one for place, one in zip(order, shares, strict=True)}


@dataclass(frozen=True, eq=False)
class Stragglers:
    """Make a share of the selected clients stragglers: they are dropped, or train for less.

    Methods that share a seed have the same stragglers, dropped or not.
    """

    share: Annotated[
        float, Field(ge=0, lt=1, description="share of a round's selected clients")
    ] = 0.9
    partial: Annotated[
        bool, Field(description="they make 1 to E - 1 epochs; otherwise they are dropped")
    ] = True

    @hookimpl(wrapper=True)
    def select_clients(self, ctx: ServerContext) -> Generator[None, Sequence[int], Sequence[int]]:
        selected = yield
        slow = {} if self.partial else draw(sorted(selected), self.share, ctx.rng(KEY))
        return [client for client in selected if client not in slow]

    @hookimpl
    def send_broadcast(self, ctx: ServerContext, payload: Payload) -> Mapping[str, Value]:
        if not self.partial:
            return payload
        shares = torch.ones(ctx.num_clients, dtype=torch.float64)
        for client, share in draw(ctx.cohort, self.share, ctx.rng(KEY)).items():
            shares[client] = share
        return {**payload, KEY: shares}

    @hookimpl
    def client_update(self, ctx: ClientContext) -> bool:
        share = float(ctx.payload.tensor(KEY)[ctx.client]) if self.partial else 1.0
        ctx.train(epochs=(lambda n: partial_epochs(share, n)) if share < 1 else None)
        return True
