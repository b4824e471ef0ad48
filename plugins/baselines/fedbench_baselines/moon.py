"""MOON pulls features towards the global model's and away from the client's previous model's.

Li, He, Song: Model-Contrastive Federated Learning, CVPR 2021, equation 3.

As in the authors' code, the received and the previous model run in evaluation mode, and features
are the input of the classifier (there, the output of a projection head that is part of the model).
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench import Batch, ClientContext, Output, Search, hookimpl
from fedbench.types import forward

STATE = "moon.previous"
"""Key of the client's state, and of the `Frozen` models in its scratch."""


class Frozen(NamedTuple):
    """The two models of a turn that do not train, in evaluation mode.

    Attributes:
        received: the global model as the client received it.
        previous: the client's own model at the end of its last turn.
    """

    received: nn.Module
    previous: nn.Module


def moon_loss(
    features: Tensor, global_features: Tensor, previous_features: Tensor, temperature: float
) -> Tensor:
    """Return the model-contrastive loss, a scalar.

    It is the mean over the batch of
    ``-log( exp(s(z, z_glob)/T) / (exp(s(z, z_glob)/T) + exp(s(z, z_prev)/T)) )``, where ``s`` is
    the cosine similarity.

    Args:
        features: (B, d), z, of the model in training.
        global_features: (B, d), z_glob, of the received model.
        previous_features: (B, d), z_prev, of the client's previous local model.
        temperature: T > 0.
    """
    near = F.cosine_similarity(features, global_features) / temperature
    far = F.cosine_similarity(features, previous_features) / temperature
    return F.softplus(far - near).mean()


@dataclass(frozen=True, eq=False)
class Moon:
    """Add ``mu`` times MOON's model-contrastive loss.

    The previous model is the client's model at the end of its last turn. It is kept in the client's
    state, however many rounds the client misses. In its first turn a client has no previous model,
    and the term is absent, as in round 1 of the authors' code (in later rounds, that code uses the
    random initial model of a new client).
    """

    mu: Annotated[
        float,
        Field(
            ge=0,
            description="weight of the term; 1 is the authors' default, 5 is their choice for "
            "CIFAR-10 and that of FPL's authors for Digits and Office-Caltech",
        ),
        Search(choices=(0.1, 1.0, 5.0, 10.0)),
    ] = 1.0
    temperature: Annotated[
        float, Field(gt=0, description="temperature T"), Search(choices=(0.1, 0.5, 1.0))
    ] = 0.5

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        if STATE in ctx.state:
            previous = copy.deepcopy(ctx.model)
            previous.load_state_dict(ctx.state[STATE])  # type: ignore[arg-type]
            ctx.scratch[STATE] = Frozen(_frozen(copy.deepcopy(ctx.model)), _frozen(previous))
        trained = yield
        ctx.state[STATE] = ctx.model.state_dict()
        return trained

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if STATE not in ctx.scratch:
            return {}
        models: Frozen = ctx.scratch[STATE]
        with torch.no_grad():
            received, previous = (forward(model, batch.inputs).features for model in models)
        return {"moon": self.mu * moon_loss(output.features, received, previous, self.temperature)}


def _frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)
