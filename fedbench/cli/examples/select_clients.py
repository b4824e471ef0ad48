"""Let the clients take turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedbench import ServerContext, hookimpl


@dataclass(frozen=True, eq=False)
class RoundRobin:
    """Select the next ``size`` clients in each round."""

    size: Annotated[int, Field(ge=1, description="clients per round")] = 2

    @hookimpl
    def select_clients(self, ctx: ServerContext) -> Sequence[int]:
        size = min(self.size, ctx.num_clients)
        first = (ctx.round - 1) * size
        return [(first + i) % ctx.num_clients for i in range(size)]
