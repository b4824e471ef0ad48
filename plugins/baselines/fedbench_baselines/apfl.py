"""APFL: a client's model is a mix of a personal and a shared model, in a ratio that it can learn.

Deng, Kamani, Mahdavi: Adaptive Personalized Federated Learning, 2020 (arXiv). The formulas are as
remembered; the paper was not re-read.

The parameters are mixed, ``a v + (1 - a) w``, and v is trained through the mix. The released code
mixes the outputs of the two models instead, estimates the gradient of ``a`` as
``a g_v + (1 - a) g_w`` and adds ``0.02 a`` to it. PFLlib trains v on a loss of its own and merges w
into it after every turn. None of this is done here.

w is trained as in FedAvg, by the run's trainer. v takes plain gradient steps with the trainer's
learning rate, on the same batches. A client is scored with the mix of its v and the new global
model; ``--set accuracy.model=global`` scores the global model. Buffers, such as batch norm's
statistics, are mixed as parameters are; those of v are what passes through the mix have made.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench import Batch, ClientContext, Search, Weights, hookimpl

from .personal_parts import ROLE, WHY, learning_rate, own_model
from .trainers import ADAPTIVE

STATE = "apfl.personal"
ALPHA = "apfl.alpha"


def mix(personal: Weights, local: Weights, alpha: float) -> Weights:
    """Return ``alpha * v + (1 - alpha) * w``; gradients flow to both.

    The ends (``alpha`` 0 and 1) and the mix of two equal models are exact, bit for bit.

    Args:
        personal: v, trainable parameters by name.
        local: w, the client's copy of the shared model, under the same names.
        alpha: the share of the personal model, from 0 to 1.
    """
    return {k: torch.lerp(local[k], v, alpha) for k, v in personal.items()}


def alpha_step(
    alpha: float, personal: Weights, local: Weights, gradient: Weights, lr: float
) -> float:
    """Return ``alpha - lr * <v - w, g>``, clipped to 0..1.

    The product is the derivative of the loss with respect to ``alpha``, summed in float64.

    Args:
        alpha: the share of the personal model so far.
        personal: v, trainable parameters by name.
        local: w, under the same names.
        gradient: g, the gradient of the client's loss at the mix of both, under the same names.
        lr: the learning rate.
    """
    slope = sum(
        float(((v.double() - local[k].double()) * gradient[k].double()).sum())
        for k, v in personal.items()
    )
    return min(max(alpha - lr * slope, 0.0), 1.0)


@dataclass
class Mixture:
    """What a turn works on: the client's v, a model that holds the mix, and alpha."""

    personal: nn.Module
    mixed: nn.Module
    alpha: float


@dataclass(frozen=True, eq=False)
class Apfl:
    """Train a personal model through its mix with the shared one, and score the mix.

    The personal model starts as the initial model and is kept from turn to turn, and so is alpha. A
    client that has not had a turn is scored with the global model.
    """

    alpha: Annotated[
        float,
        Field(ge=0, le=1, description="share of the personal model; 0.5 in the authors' code"),
        Search(choices=(0.25, 0.5, 0.75)),
    ] = 0.5
    adaptive: Annotated[
        bool,
        Field(description="learn each client's alpha, by one step per turn; off in their code"),
    ] = False

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = {
        ROLE: WHY,
        ADAPTIVE: "its personal model takes steps of SGD's learning rate",
    }

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        mixture = Mixture(own_model(ctx, STATE), copy.deepcopy(ctx.model), self.share(ctx))
        load_mix(mixture.mixed, mixture.personal.state_dict(), ctx.model, mixture.alpha)
        ctx.scratch[STATE] = mixture
        trained = yield
        buffers = dict(mixture.mixed.named_buffers())
        ctx.state[STATE] = {**mixture.personal.state_dict(), **buffers}
        ctx.state[ALPHA] = torch.tensor(mixture.alpha, dtype=torch.float64)
        if self.adaptive:
            ctx.metric("apfl.alpha", mixture.alpha)
        return trained

    @hookimpl
    def after_backward(self, ctx: ClientContext, batch: Batch) -> None:
        mixture: Mixture = ctx.scratch[STATE]
        lr, alpha = learning_rate(ctx, "apfl"), mixture.alpha
        local, personal, at = (
            dict(model.named_parameters()) for model in (ctx.model, mixture.personal, mixture.mixed)
        )
        with torch.no_grad():
            for name, value in mix(personal, local, alpha).items():
                at[name].copy_(value)
        gradient = self._gradient(ctx, batch, mixture.mixed)
        with torch.no_grad():
            if self.adaptive and ctx.training.steps == 0:
                trained = {name: personal[name] for name in gradient}
                mixture.alpha = alpha_step(alpha, trained, local, gradient, lr)
            for name, g in gradient.items():
                personal[name].sub_(alpha * g, alpha=lr)

    def _gradient(self, ctx: ClientContext, batch: Batch, model: nn.Module) -> dict[str, Tensor]:
        """Return the gradient of the loss at ``model``, by the names of the parameters in it."""
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        loss = ctx.loss(batch, model, record=False)
        with ctx.phase("backward"):
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return {n: g for n, g in zip(named, found, strict=True) if g is not None}

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        if STATE in ctx.state:
            personal: Any = ctx.state[STATE]
            load_mix(ctx.model, personal, ctx.model, self.share(ctx))

    def share(self, ctx: ClientContext) -> float:
        """Return the client's alpha."""
        kept: Any = ctx.state.get(ALPHA, self.alpha)
        return float(kept)


def load_mix(into: nn.Module, personal: Weights, shared: nn.Module, alpha: float) -> None:
    """Load the mix of all floating-point entries; the others are those of ``shared``."""
    weights = {name: w.detach() for name, w in shared.state_dict().items()}
    floating = {n: personal[n].to(w) for n, w in weights.items() if w.is_floating_point()}
    into.load_state_dict({**weights, **mix(floating, weights, alpha)})
