"""Local training by SGD, and the classification loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.optim import sgd as functional

from fedbench.hookspecs import hookimpl
from fedbench.training import Training
from fedbench.types import Batch, Output

from .classification import ROLE
from .trainers import Step, Trainer


@dataclass(frozen=True, eq=False)
class Sgd(Trainer):
    """Train the client's model by stochastic gradient descent on the sum of all loss terms."""

    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty on all weights")] = 1e-5

    def optimiser(self, work: Training) -> Step:
        """Return a step of SGD that starts without momentum."""
        momenta: list[Tensor | None] = [None] * len(work.parameters)
        work.momentum = self.momentum
        return lambda lr: step(work.parameters, momenta, lr, self.momentum, self.weight_decay)


@torch.no_grad()
def step(
    weights: Sequence[Tensor],
    momenta: list[Tensor | None],
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """Take one step of `torch.optim.SGD`, bit for bit; change weights and momenta in place.

    The optimiser's constructor would load PyTorch's compiler, which costs every worker more than a
    second and 90 MB.

    Args:
        weights: parameters; those without a gradient are unchanged.
        momenta: one per weight, of its shape, ``None`` before the weight's first step.
        lr: learning rate.
        momentum: factor of the momenta, 0 for none.
        weight_decay: L2 penalty.
    """
    used = [i for i, w in enumerate(weights) if w.grad is not None]
    kept = [momenta[i] for i in used]
    functional.sgd(
        [weights[i] for i in used],
        [g for i in used if (g := weights[i].grad) is not None],
        kept,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
    for i, value in zip(used, kept, strict=True):
        momenta[i] = value


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """Add the mean cross-entropy of the classifier's logits."""

    roles: ClassVar[tuple[str, ...]] = (ROLE,)

    weight: Annotated[float, Field(ge=0, description="weight of the term")] = 1.0
    label_smoothing: Annotated[
        float, Field(ge=0, le=1, description="share of the uniform distribution in the targets")
    ] = 0.0

    @hookimpl
    def local_loss(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        loss = F.cross_entropy(output.logits, batch.labels, label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss if self.weight == 1 else self.weight * loss}
