"""FedGH: the server trains a shared classifier on the class means that clients upload.

Yi, Wang, Liu, Shi, Yu: FedGH: Heterogeneous Federated Learning with Generalized Global Header, ACM
Multimedia 2023.

Extractors stay with the clients, and the trained head replaces theirs. In the released code the
server's optimiser holds a client's parameters, so that the shared head never moves, and gradients
are never cleared; here the head is trained by SGD of its own, as the paper says. The paper's text
was not re-read, and the defaults of the head's training are ours.

Class means come from one pass after training, in evaluation mode. As the recipe says, the plugin
``personal`` keeps each client's model; the head is replaced in it at the start of a turn and for
scores. The trained head is also the global model's classifier.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedbench import (
    ClientContext,
    PerClass,
    Report,
    Search,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    hookimpl,
)

MEANS, HEAD = "fedgh.means", "fedgh.head"


def train_head(
    weight: Tensor,
    bias: Tensor,
    prototypes: PerClass,
    epochs: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return weight and bias after plain SGD on cross-entropy of the pairs (mean, class).

    Args:
        weight: (C, d), on the CPU, like all tensors.
        bias: (C,).
        prototypes: the clients' class means (d,), any number of rows per class, each one example.
        epochs: passes over all rows.
        batch_size: rows per step; the last step of an epoch may have fewer.
        lr: learning rate.
        generator: source of the batches' order.
    """
    weight, bias = weight.detach().clone(), bias.detach().clone()
    values = prototypes.values.to(weight.dtype)
    onehot = F.one_hot(prototypes.labels, len(weight)).to(weight.dtype)
    for _ in range(epochs):
        order = torch.randperm(len(values), generator=generator)
        batches = (part[order].split(batch_size) for part in (values, onehot))
        for z, y in zip(*batches, strict=True):
            slopes = (torch.addmm(bias, z, weight.T).softmax(dim=1) - y) / len(z)
            weight.addmm_(slopes.T, z, alpha=-lr)
            bias.sub_(slopes.sum(dim=0), alpha=lr)
    return weight, bias


@dataclass(frozen=True, eq=False)
class FedGH:
    """Replace each client's classifier by one that the server trains on the clients' class means.

    A client's turn starts with the received classifier, which is trained along with the rest of its
    model.
    """

    server_epochs: Annotated[
        int, Field(ge=1, description="passes over the class means per round")
    ] = 100
    server_batch_size: Annotated[int, Field(ge=1, description="class means per step")] = 64
    server_lr: Annotated[
        float,
        Field(gt=0, description="learning rate of the head"),
        Search(low=1e-3, high=1e-1, scale="log"),
    ] = 0.01

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {HEAD: dict(zip(("weight", "bias"), state.classifier, strict=True))}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        self.personalize(ctx)
        trained = yield
        output, labels = ctx.embed()
        ctx.upload(MEANS, PerClass.means(output.features, labels))
        return trained

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        ctx.model.classifier.load_state_dict(ctx.payload.weights(HEAD))  # type: ignore[union-attr]

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, reports: Sequence[Report]
    ) -> ServerUpdate:
        means = PerClass.concat(r.uploads.per_class(MEANS) for r in reports)
        weight, bias = train_head(
            *state.classifier,
            means,
            self.server_epochs,
            self.server_batch_size,
            self.server_lr,
            ctx.rng("fedgh"),
        )
        return ServerUpdate(weights={"classifier.weight": weight, "classifier.bias": bias})
