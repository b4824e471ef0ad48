"""Tell the clients how strong a penalty is in each round."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench import ClientContext, Output, ServerContext, Value, hookimpl

KEY = "fading.strength"


@dataclass(frozen=True, eq=False)
class Fading:
    """Penalise large features, less and less from round to round."""

    start: Annotated[float, Field(ge=0, description="strength in round 1")] = 0.1

    @hookimpl
    def broadcast(self, ctx: ServerContext) -> Mapping[str, Value]:
        return {KEY: torch.tensor(self.start / ctx.round)}

    @hookimpl
    def local_loss(self, ctx: ClientContext, output: Output) -> Mapping[str, torch.Tensor]:
        return {"fading": ctx.payload.tensor(KEY) * output.features.square().mean()}
