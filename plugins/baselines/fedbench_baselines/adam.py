"""Local training by Adam and AdamW.

Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015, Algorithm 1; Loshchilov, Hutter:
Decoupled Weight Decay Regularization, ICLR 2019. The papers were not re-read: the numbers are those
of `torch.optim.Adam` and `torch.optim.AdamW`. Every pass starts with moments of zero, as it does
with `sgd`: no moment travels, and clients keep none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import adam as functional
from torch.optim import adamw as functional_w

from fedbench.options import Search
from fedbench.training import Training

from .trainers import ADAPTIVE, Step, Trainer


@dataclass
class Moments:
    """What Adam keeps of one weight: its steps so far (), and two running means of its shape."""

    steps: Tensor
    first: Tensor
    second: Tensor


@torch.no_grad()
def step(
    weights: Sequence[Tensor],
    moments: list[Moments | None],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Take one step of `torch.optim.Adam`, bit for bit; change weights and moments in place.

    The optimiser's constructor would load PyTorch's compiler, which costs every worker more than a
    second and 90 MB.

    Args:
        weights: parameters; those without a gradient are unchanged.
        moments: one per weight, ``None`` before the weight's first step.
        lr: learning rate.
        betas: decay of the means of the gradient and of its square, each in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: L2 penalty, or with ``decoupled`` the share of the weights, times ``lr``, by
            which they shrink.
        decoupled: whether it is a step of `torch.optim.AdamW`.
    """
    used = [i for i, w in enumerate(weights) if w.grad is not None]
    for i in used:
        if moments[i] is None:
            zeros = torch.zeros_like(weights[i]), torch.zeros_like(weights[i])
            moments[i] = Moments(torch.tensor(0.0, dtype=torch.float32), *zeros)
    kept = [m for i in used if (m := moments[i]) is not None]
    (functional_w.adamw if decoupled else functional.adam)(
        [weights[i] for i in used],
        [g for i in used if (g := weights[i].grad) is not None],
        [m.first for m in kept],
        [m.second for m in kept],
        [],
        [m.steps for m in kept],
        amsgrad=False,
        beta1=betas[0],
        beta2=betas[1],
        lr=lr,
        weight_decay=weight_decay,
        eps=eps,
        maximize=False,
    )


@dataclass(frozen=True, eq=False)
class Adam(Trainer):
    """Train the client's model by Adam on the sum of all loss terms."""

    roles: ClassVar[tuple[str, ...]] = (ADAPTIVE,)

    lr: Annotated[
        float,
        Field(gt=0, description="learning rate"),
        Search(low=1e-4, high=1e-2, scale="log"),
    ] = 0.001
    beta1: Annotated[float, Field(ge=0, lt=1, description="decay of the mean gradient")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="decay of the mean squared gradient")] = (
        0.999
    )
    eps: Annotated[
        float, Field(gt=0, description="added to the root of the mean squared gradient")
    ] = 1e-8
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty on all weights")] = 0.0

    def optimiser(self, work: Training) -> Step:
        """Return a step of Adam that starts with moments of zero."""
        return self._steps(work, decoupled=False)

    def _steps(self, work: Training, decoupled: bool) -> Step:
        moments: list[Moments | None] = [None] * len(work.parameters)
        fixed = (self.beta1, self.beta2), self.eps, self.weight_decay, decoupled
        return lambda lr: step(work.parameters, moments, lr, *fixed)


@dataclass(frozen=True, eq=False)
class AdamW(Adam):
    """Train the client's model by AdamW on the sum of all loss terms."""

    weight_decay: Annotated[
        float, Field(ge=0, description="share of all weights, times lr, by which they shrink")
    ] = 0.01

    def optimiser(self, work: Training) -> Step:
        """Return a step of AdamW that starts with moments of zero."""
        return self._steps(work, decoupled=True)
