"""Clients take part in turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedbench import ServerContext, hookimpl


@dataclass(frozen=True, eq=False)
class RoundRobin:
    """Take the next ``size`` clients each round."""

    size: Annotated[int, Field(ge=1, description="clients a round")] = 2

    @hookimpl
    def select_clients(self, ctx: ServerContext) -> Sequence[int]:
        size = min(self.size, ctx.num_clients)
        first = (ctx.round - 1) * size
        return [(first + i) % ctx.num_clients for i in range(size)]
