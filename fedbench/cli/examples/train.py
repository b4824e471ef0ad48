"""Train with signs of gradients only."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench import ClientContext, Training, hookimpl


@dataclass(frozen=True, eq=False)
class Signs:
    """Move every weight by ``lr`` against the sign of its gradient; replaces ``sgd``."""

    lr: Annotated[float, Field(gt=0, description="learning rate")] = 0.001
    epochs: Annotated[int, Field(ge=1, description="local epochs per round")] = 1
    batch_size: Annotated[int, Field(ge=1, description="examples per batch")] = 64

    @hookimpl
    def train(self, ctx: ClientContext, work: Training) -> bool:
        work.lr, work.momentum = self.lr, 0.0
        for batch in work.batches(self.batch_size, self.epochs):
            work.backward(batch)
            with ctx.phase("optimiser"), torch.no_grad():
                for weight in work.parameters:
                    if weight.grad is not None:
                        weight.sub_(weight.grad.sign(), alpha=self.lr)
        return True
