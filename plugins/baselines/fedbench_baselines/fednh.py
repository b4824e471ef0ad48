"""FedNH: the classifier's rows are unit prototypes that only the server moves.

Dai, Chen, Li, Heinecke, Sun, Xu: Tackling Data Heterogeneity in Federated Learning with Class
Prototypes, AAAI 2023.

The logits are ``scale * cos(z, W_c)``. The rows W are orthonormal at the start, fixed in local
training, and smoothed on the server towards the clients' mean directions. From the released code:
clients compute these directions in evaluation mode after training, and extractors are averaged
plainly (the recipe's ``mean.weights: uniform``). There the scale is trained from 1 (CNN) or 20
(ResNet), or fixed at 30, and gradients are clipped at norm 10; here the scale is an option and
gradients are not clipped. The paper's text was not re-read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench import (
    Batch,
    ClientContext,
    Output,
    PerClass,
    Report,
    Search,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)

from .classification import ALONE, FIXED, ROLE

KEY, UPLOAD = "fednh.prototypes", "fednh.directions"


def initial_prototypes(num_classes: int, d: int, generator: torch.Generator) -> Tensor:
    """Return random orthonormal rows (C, d); with C > d, the columns are orthonormal instead."""
    rows = torch.empty(num_classes, d)
    nn.init.orthogonal_(rows, generator=generator)
    return rows


def class_directions(features: Tensor, labels: Tensor) -> PerClass:
    """Return each class's mean direction: the normalised mean of normalised features.

    Args:
        features: (n, d), in evaluation mode.
        labels: (n,) int64.

    Returns:
        one unit row per class present, with the number of its features; a zero row if they cancel.
    """
    means = PerClass.means(F.normalize(features, dim=1), labels)
    return PerClass(means.labels, F.normalize(means.values, dim=1), means.counts)


def smooth(prototypes: Tensor, uploads: PerClass, smoothing: float) -> Tensor:
    """Return the new rows ``normalize( r W_c + (1 - r) m_c )``, (C, d).

    ``m_c`` is the normalised mean of the clients' directions, weighted by count. A class without
    examples in ``uploads`` keeps its row.

    Args:
        prototypes: W, (C, d).
        uploads: all clients' `class_directions`, at least one row.
        smoothing: r, in (0, 1].
    """
    held = uploads.counts > 0
    parts = (uploads.labels[held], uploads.values[held].double(), uploads.counts[held])
    means = PerClass(*parts).average(by_count=True)
    old = prototypes[means.labels].double()
    moved = smoothing * old + (1 - smoothing) * F.normalize(means.values, dim=1)
    return prototypes.index_copy(0, means.labels, F.normalize(moved, dim=1).to(prototypes.dtype))


def cosine_logits(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """Return ``scale * cos(z_i, W_c)``, (B, C).

    Args:
        features: z, (B, d).
        prototypes: W, (C, d).
        scale: s > 0, the inverse of a temperature.
    """
    return scale * F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).T


@dataclass(frozen=True, eq=False)
class FedNH:
    """Use the cross-entropy of ``scale * cos(z, W_c)`` as the loss; the server moves W.

    The model's own classifier gets no gradient. The server writes W into it with a bias of 0, which
    makes it predict the same class as the rule ``cosine``.
    """

    anchors: ClassVar[tuple[str, ...]] = (KEY,)
    roles: ClassVar[tuple[str, ...]] = (ROLE, FIXED)
    conflicts: ClassVar[Mapping[str, str]] = ALONE

    smoothing: Annotated[
        float,
        Field(gt=0, le=1, description="r, the share of the old rows; 0.9 as released"),
        Search(choices=(0.5, 0.9, 0.99)),
    ] = 0.9
    scale: Annotated[
        float,
        Field(gt=0, description="s; in the released code trained from 1 or 20, or 30"),
        Search(choices=(1.0, 10.0, 20.0, 30.0)),
    ] = 20.0

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        num_classes, d = weights["classifier.weight"].shape
        return {KEY: initial_prototypes(num_classes, d, ctx.rng("fednh"))}

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {KEY: state.entries[KEY]}

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        logits = cosine_logits(output.features, ctx.payload.tensor(KEY), self.scale)
        return {"fednh": F.cross_entropy(logits, batch.labels)}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        output, labels = ctx.embed()
        ctx.upload(UPLOAD, class_directions(output.features, labels))
        return trained

    @hookimpl
    def server_update(self, state: ServerState, reports: Sequence[Report]) -> ServerUpdate:
        uploads = PerClass.concat(r.uploads.per_class(UPLOAD) for r in reports)
        rows = smooth(state.entries.tensor(KEY), uploads, self.smoothing)
        bias = torch.zeros_like(state.classifier[1])
        return ServerUpdate({KEY: rows}, {"classifier.weight": rows, "classifier.bias": bias})

    @hookimpl
    def inference(self, state: ServerState) -> Mapping[str, Callable[[Output], Tensor]]:
        rows = state.entries.tensor(KEY)

        def cosine(output: Output) -> Tensor:
            return cosine_logits(output.features, rows.to(output.features), self.scale)

        return {"cosine": cosine}
