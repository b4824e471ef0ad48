"""pFedMe: personal models by Moreau envelopes; the shared model moves towards them.

Dinh, Tran, Nguyen: Personalized Federated Learning with Moreau Envelopes, NeurIPS 2020. The
formulas agree with the released code; the paper was not re-read.

For each batch, K steps of `theta_step` approach the minimum of
``F_k(theta) + lambda/2 * ||theta - w||^2``, and one `local_step` moves w towards it. The personal
model is theta; as in the released code, it is not reset between batches. What that code evaluates
as theta are the parameters of the model into which it has just copied w, so the "personalised"
accuracy that it reports is that of w. Its optimiser also adds a weight decay of 0.001 that the
paper does not mention; here there is none. In that code every client trains in every round,
sampled or not; here, as elsewhere, only those of the round do. The defaults are the code's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fedbench import (
    ClientContext,
    Search,
    ServerContext,
    ServerState,
    ServerUpdate,
    Training,
    Weights,
    hookimpl,
)

from .ditto import personal_step
from .personal_parts import ROLE, WHY
from .trainers import ADAPTIVE
from .vectors import combined

STATE = "pfedme.theta"


def theta_step(
    theta: Weights, gradient: Weights, local: Weights, lr: float, weight: float
) -> Weights:
    """Return ``theta - lr * (g + weight * (theta - w))``, one step of the personal model.

    It is Ditto's step with the client's own w in place of the received model.

    Args:
        theta: the personal model, trainable parameters by name.
        gradient: g, the gradient of the client's loss at theta, under the same names.
        local: w, the client's copy of the shared model, under the same names.
        lr: the personal learning rate.
        weight: lambda.
    """
    return personal_step(theta, gradient, local, lr, weight)


def local_step(local: Weights, theta: Weights, lr: float, weight: float) -> Weights:
    """Return ``w - lr * weight * (w - theta)``, a step along the envelope's gradient.

    Args:
        local: w, trainable parameters by name.
        theta: the personal model, under the same names.
        lr: the learning rate of w; w approaches theta from one side if ``lr * weight < 1``.
        weight: lambda.
    """
    return {k: w - lr * weight * (w - theta[k]) for k, w in local.items()}


@dataclass(frozen=True, eq=False)
class PFedMe:
    """The trainer of pFedMe, in place of `sgd`: train theta and w together, and score theta.

    In a turn theta starts as the received weights. What the client sends is w; it keeps theta. A
    batch that is smaller than the others is left out. A client that has not had a turn is scored
    with the global model.
    """

    weight: Annotated[
        float,
        Field(ge=0, description="lambda, how near theta stays to w"),
        Search(choices=(5.0, 15.0, 30.0)),
    ] = 15.0
    inner_steps: Annotated[int, Field(ge=1, description="K, steps of theta on each batch")] = 5
    personal_lr: Annotated[
        float,
        Field(gt=0, description="learning rate of theta"),
        Search(low=1e-3, high=1e-1, scale="log"),
    ] = 0.09
    lr: Annotated[
        float,
        Field(gt=0, description="learning rate of w; lr x weight < 1"),
        Search(low=1e-3, high=3e-2, scale="log"),
    ] = 0.005
    steps: Annotated[int, Field(ge=1, description="R, batches per turn")] = 20
    batch_size: Annotated[int, Field(ge=1, description="examples per batch")] = 20
    beta: Annotated[
        float, Field(gt=0, description="server step; 1 takes the mean of the clients' w")
    ] = 1.0

    roles: ClassVar[tuple[str, ...]] = (ROLE, ADAPTIVE)
    conflicts: ClassVar[Mapping[str, str]] = {ROLE: WHY}

    def __post_init__(self) -> None:
        if self.lr * self.weight >= 1:
            raise ValueError(
                f"lr x weight must be below 1 for a stable step of w, got {self.lr * self.weight:g}"
            )

    @hookimpl
    def train(self, ctx: ClientContext, work: Training) -> bool:
        # work.lr stays unknown: w does not move by a learning rate times a gradient.
        theta = {str(i): p for i, p in enumerate(work.parameters)}
        local: Weights = {name: p.detach().clone() for name, p in theta.items()}
        for batch in work.batches(
            self.batch_size, self.steps, drop_last=True, max_steps=self.steps
        ):
            for _ in range(self.inner_steps):
                work.backward(batch)
                with torch.no_grad(), ctx.phase("optimiser"):
                    self._step(theta, local)
            local = local_step(
                local, {n: p.detach() for n, p in theta.items()}, self.lr, self.weight
            )
        if work.record:
            ctx.state[STATE] = work.model.state_dict()
        with torch.no_grad():
            for name, p in theta.items():
                p.copy_(local[name])
        return True

    def _step(self, theta: Mapping[str, torch.nn.Parameter], local: Weights) -> None:
        used = {name: p for name, p in theta.items() if p.grad is not None}
        gradient = {name: p.grad for name, p in used.items() if p.grad is not None}
        new = theta_step(used, gradient, local, self.personal_lr, self.weight)
        for name, p in used.items():
            p.copy_(new[name])

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, before: Weights
    ) -> ServerUpdate:
        if self.beta == 1:
            return ServerUpdate()
        mean = {name: state.weights[name] for name, _ in ctx.model.named_parameters()}
        moved = combined(lambda w, old: (1 - self.beta) * old + self.beta * w, mean, before)
        return ServerUpdate(weights=moved)

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        if STATE in ctx.state:
            ctx.model.load_state_dict(ctx.state[STATE])  # type: ignore[arg-type]
