"""Count on the server how often each client has taken part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fedbench import Report, ServerContext, ServerState, ServerUpdate, Value, hookimpl

KEY = "turns.count"


@dataclass(frozen=True, eq=False)
class Turns:
    """Keep the number of turns of each client in a tensor of shape (clients,)."""

    @hookimpl
    def init_server(self, ctx: ServerContext) -> Mapping[str, Value]:
        return {KEY: torch.zeros(ctx.num_clients)}

    @hookimpl
    def server_update(self, state: ServerState, reports: Sequence[Report]) -> ServerUpdate:
        count = state.entries.tensor(KEY).clone()
        count[[report.client for report in reports]] += 1
        return ServerUpdate(entries={KEY: count})
