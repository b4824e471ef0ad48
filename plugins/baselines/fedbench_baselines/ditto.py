"""Ditto: FedAvg, and besides it a personal model per client that is kept near the global one.

Li, Hu, Beirami, Smith: Ditto: Fair and Robust Federated Learning Through Personalization, ICML
2021. The formula was not re-read in the paper; it agrees with the released code.

Client k's personal model minimises ``F_k(v) + lambda/2 * ||v - w_t||^2``. As in the released code,
``w_t`` is the received model during the whole turn, not the one that the client is training. That
code tries 0.1, 1 and 2 for ``lambda`` and keeps the best per client on validation data, or uses 1.
It takes the plain mean of the clients' weights (``weights: uniform``).

The personal model is trained after the global one, by the run's trainer, on the same batches; its
momentum and weight decay apply to both. ``--set accuracy.model=global`` scores the global model.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fedbench import Batch, ClientContext, Search, Weights, hookimpl

from .fedprox import proximal_term
from .personal_parts import ROLE, WHY, own_model

STATE = "ditto.weights"


def personal_step(
    personal: Weights, gradient: Weights, received: Weights, lr: float, weight: float
) -> Weights:
    """Return ``v - lr * (g + weight * (v - w_t))``, one step of the personal model.

    With ``weight`` 0, this is a step of SGD, and the personal model is trained locally only.

    Args:
        personal: v, trainable parameters by name.
        gradient: g, the gradient of the client's loss at v, under the same names.
        received: w_t, under the same names.
        lr: the learning rate; the step is stable only if ``lr * weight < 2``.
        weight: lambda, the weight of the proximal term.
    """
    return {k: v - lr * (gradient[k] + weight * (v - received[k])) for k, v in personal.items()}


@dataclass(frozen=True, eq=False)
class Ditto:
    """Train a personal model near the received one in every turn, and score it.

    It starts as the initial model and is kept from turn to turn. With a weight of 0 it is that of
    local training (the recipe ``local``), bit for bit. A client that has not had a turn is scored
    with the global model.
    """

    weight: Annotated[
        float,
        Field(ge=0, description="weight lambda of the proximal term; 1 in the authors' code"),
        Search(choices=(0.1, 1.0, 2.0)),
    ] = 1.0

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = {ROLE: WHY}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        received = [p.detach().clone() for p in ctx.model.parameters()]
        trained = yield
        personal = own_model(ctx, STATE)

        def loss(batch: Batch) -> Tensor:
            pairs = zip(personal.parameters(), received, strict=True)
            params, anchor = zip(*((p, a) for p, a in pairs if p.requires_grad), strict=True)
            return ctx.loss(batch) + self.weight * proximal_term(params, anchor)

        ctx.train(personal, loss=loss if self.weight else None)
        ctx.state[STATE] = personal.state_dict()
        return trained

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        if STATE in ctx.state:
            ctx.model.load_state_dict(ctx.state[STATE])  # type: ignore[arg-type]
