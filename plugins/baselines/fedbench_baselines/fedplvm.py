"""FedPLVM: two levels of clustered prototypes, so that classes of more variance get more of them.

Wang, Bian, Zhang, Chen, Xu: Taming Cross-Domain Representation Variance in Federated Prototype
Learning with Heterogeneous Data Domains, NeurIPS 2024.

Each client clusters its features of a class (`local_clusters`); the server clusters all clients'
rows of a class by the same rule (`.fpl.cluster`). The local loss is
``CE + lambda * (sparsity + correction)``.

From the released code: the correction uses the cosine itself; the paper's may use its power, and
its text was not re-read. There, a negative cosine makes a NaN and a class without prototypes makes
the loss infinite; here neither happens. There, weights are averaged plainly when labels are evenly
spread (``--set mean.weights=uniform``), small last batches are left out, and the term waits until
all clients have uploaded; here it uses the prototypes of the last round's clients.

A client clusters the features of one pass after training, in evaluation mode. It sends any number
of rows per class, so bytes differ from round to round.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedbench import (
    Batch,
    ClientContext,
    Output,
    PerClass,
    Report,
    Search,
    ServerState,
    ServerUpdate,
    Value,
    hookimpl,
)

from .fpl import cluster

KEY = "fedplvm.prototypes"
SMALLEST = 1e-6
"""Lower bound of a cosine whose power is taken; for alpha < 1 the slope at 0 is infinite."""


def local_clusters(features: Tensor, labels: Tensor) -> PerClass:
    """Return a client's prototypes: one row per cluster of a class's features (FINCH, coarsest).

    Args:
        features: (n, d), without gradient, on the CPU.
        labels: (n,) int64.
    """
    return cluster(PerClass(labels, features, torch.ones_like(labels)))


def sparsity_loss(
    features: Tensor, labels: Tensor, prototypes: PerClass, temperature: float, alpha: float
) -> Tensor:
    """Return the alpha-sparsity loss, a scalar, the mean over the batch.

    The loss of a sample is ``-log( sum_{p in P_y} exp(s^alpha / T) / sum_p exp(s^alpha / T) )``
    with the cosine similarity ``s``, which is raised to 1e-6 where it is lower and has no gradient
    there. A sample whose class has no prototype adds nothing but still counts in the mean.

    Args:
        features: (B, d).
        labels: (B,) int64.
        prototypes: any number of rows (d,) per class.
        temperature: T > 0.
        alpha: power of the similarity, > 0; below 1 it spreads low similarities.
    """
    same = labels[:, None] == prototypes.labels[None, :]
    known = same.any(dim=1, keepdim=True)
    unit = F.normalize(prototypes.values, dim=1)
    cosines = F.normalize(features, dim=1) @ unit.T
    scores = cosines.clamp(min=SMALLEST).pow(alpha) / temperature
    # A sample of an unknown class gets all prototypes as its own, so its loss is exactly 0.
    own = scores.masked_fill(~(same | ~known), -torch.inf)
    return (scores.logsumexp(dim=1) - own.logsumexp(dim=1)).mean()


def correction_loss(features: Tensor, labels: Tensor, prototypes: PerClass) -> Tensor:
    """Return ``2 * mean_i (s(z_i, U_y) - 1)^2``, a scalar.

    ``s`` is the cosine similarity and ``U_y`` the plain mean of class y's prototypes. A sample
    whose class has none adds nothing but still counts in the mean.

    Args:
        features: z, (B, d).
        labels: (B,) int64.
        prototypes: any number of rows (d,) per class.
    """
    same = labels[:, None] == prototypes.labels[None, :]
    # The sum of a class's rows has the direction of their mean.
    sums = same.to(features.dtype) @ prototypes.values.to(features.dtype)
    cosines = (F.normalize(features, dim=1) * F.normalize(sums, dim=1)).sum(dim=1)
    return 2 * torch.where(same.any(dim=1), (cosines - 1).square(), 0.0).mean()


@dataclass(frozen=True, eq=False)
class FedPLVM:
    """Add both losses; upload clustered features; cluster the clients' rows on the server."""

    anchors: ClassVar[tuple[str, ...]] = (KEY,)

    weight: Annotated[
        float,
        Field(
            ge=0,
            description="weight of the terms, lambda; 100 in the released code, for learning rate "
            "0.01 and momentum 0.5: with momentum 0.9, as in the recipe, 20 makes equal steps",
        ),
        Search(low=1, high=100, scale="log"),
    ] = 100.0
    temperature: Annotated[
        float, Field(gt=0, description="temperature T; 0.07 in the released code")
    ] = 0.07
    alpha: Annotated[
        float,
        Field(gt=0, le=1, description="power of the cosine; 0.25 in the released code"),
        Search(choices=(0.25, 0.5, 1.0)),
    ] = 0.25

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {KEY: state.entries[KEY]} if KEY in state.entries else {}

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if KEY not in ctx.payload:
            return {}
        given = output.features, batch.labels, ctx.payload.per_class(KEY)
        loss = sparsity_loss(*given, self.temperature, self.alpha) + correction_loss(*given)
        return {"fedplvm": self.weight * loss}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        output, labels = ctx.embed()
        ctx.upload(KEY, local_clusters(output.features.cpu(), labels.cpu()))
        return trained

    @hookimpl
    def server_update(self, reports: Sequence[Report]) -> ServerUpdate:
        clusters = cluster(PerClass.concat(r.uploads.per_class(KEY) for r in reports))
        metrics = {"fedplvm.clusters": float(len(clusters))}
        return ServerUpdate(entries={KEY: clusters}, metrics=metrics)
