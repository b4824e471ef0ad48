"""Refuse a run in which a client has too few examples."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedbench import ConfigError, ServerContext, hookimpl


@dataclass(frozen=True, eq=False)
class EnoughData:
    """End the run before round 1 if a client has fewer than ``least`` examples."""

    least: Annotated[int, Field(ge=1, description="fewest examples per client")] = 10

    @hookimpl
    def run_start(self, ctx: ServerContext) -> None:
        for client, examples in enumerate(ctx.client_sizes):
            if examples < self.least:
                raise ConfigError(
                    f"client {client} has {examples} examples; at least {self.least} are needed"
                )
