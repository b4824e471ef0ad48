"""FedNTD: a client keeps what the global model knows about the classes that are not true.

Lee, Jeong, Shin, Bae, Yun: Preservation of the Global Knowledge by Not-True Distillation in
Federated Learning, NeurIPS 2022.

The teacher is the received model on the same augmented batch. The released code never sets the
teacher's mode; with batch norm that matters, and here it runs in evaluation mode. The paper's text
was not re-read.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench import Batch, ClientContext, Output, Search, hookimpl
from fedbench.types import forward

SCRATCH = "fedntd.teacher"


def ntd_loss(logits: Tensor, global_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 * KL(global || local)`` between softmaxes over the not-true classes, a scalar.

    The result is the mean over the batch. The gradient flows through ``logits`` alone. With two
    classes, one is left and the loss is 0.

    Args:
        logits: (B, C), of the model in training.
        global_logits: (B, C), of the received model.
        labels: (B,) int64, the true classes.
        temperature: T > 0.
    """
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = others + (others >= labels[:, None])  # (B, C - 1): all classes but the true one
    student = (logits.gather(1, others) / temperature).log_softmax(dim=1)
    teacher = (global_logits.detach().gather(1, others) / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


@dataclass(frozen=True, eq=False)
class FedNTD:
    """Add ``beta`` times the not-true distillation from the received model."""

    beta: Annotated[
        float,
        Field(ge=0, description="weight of the term; 1 in the released configuration"),
        Search(low=0.1, high=10, scale="log"),
    ] = 1.0
    temperature: Annotated[
        float, Field(gt=0, description="temperature T; 1 in the released configuration")
    ] = 1.0

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        ctx.scratch[SCRATCH] = copy.deepcopy(ctx.model).eval().requires_grad_(False)
        return (yield)

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if SCRATCH not in ctx.scratch:  # a pass outside a turn has no received model to learn from
            return {}
        teacher: nn.Module = ctx.scratch[SCRATCH]
        with torch.no_grad():
            known = forward(teacher, batch.inputs).logits
        loss = ntd_loss(output.logits, known, batch.labels, self.temperature)
        return {"fedntd": self.beta * loss}
