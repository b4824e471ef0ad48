"""Fine-tuning: before its scores, a client trains the global model on its own data.

It is the usual bound for personalised methods: with it, FedAvg makes a personal model for every
client (the recipe ``fedavg-ft``), and FedBABU is fine-tuned in this way. The default of 5 epochs is
that of FedBABU's released code (Oh et al., ICLR 2022). Nothing of it is kept: every scoring starts
from the current global model, or from what another plugin has made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from fedbench import ClientContext, Search, hookimpl

from .personal_parts import is_head


@dataclass(frozen=True, eq=False)
class FineTuning:
    """Train the model of a client for some epochs before it is scored."""

    epochs: Annotated[
        int, Field(ge=1, description="epochs before a client's scores"), Search(choices=(1, 5, 10))
    ] = 5
    part: Annotated[
        Literal["model", "head"], Field(description="what is trained: all of it, or the classifier")
    ] = "model"

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        only = is_head if self.part == "head" else None
        ctx.train(epochs=self.epochs, only=only, stream="fine_tuning")
