"""Clip gradients."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch.nn.utils import clip_grad_norm_

from fedbench import ClientContext, hookimpl


@dataclass(frozen=True, eq=False)
class Clip:
    """Scale the gradient down so that its norm is at most ``norm``."""

    norm: Annotated[float, Field(gt=0, description="largest norm of the whole gradient")] = 1.0

    @hookimpl
    def after_backward(self, ctx: ClientContext) -> None:
        clip_grad_norm_(ctx.model.parameters(), self.norm)
