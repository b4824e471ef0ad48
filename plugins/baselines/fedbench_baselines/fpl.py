"""FPL: several prototypes per class, found by clustering, under domain shift.

Huang, Ye, Shi, Li, Du: Rethinking Federated Learning with Domain Shift: A Prototype View, CVPR
2023, equations 4 to 9. Clustering is FINCH (Sarfraz, Sharma, Stiefelhagen: Efficient Parameter-free
Clustering Using First Neighbor Relations, CVPR 2019, equation 1).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from fedbench import (
    Batch,
    ClientContext,
    Output,
    PerClass,
    Report,
    ServerState,
    ServerUpdate,
    Value,
    hookimpl,
)

from .prototypes import gather, local_prototypes

KEY = "fpl.prototypes"


def fpl_loss(features: Tensor, labels: Tensor, prototypes: PerClass, temperature: float) -> Tensor:
    """Return FPL's term, a scalar: cluster prototype contrast plus unbiased prototype consistency.

    Per sample ``-log( sum_{p in P_y} exp(s(z,p)/T) / sum_{all p} exp(s(z,p)/T) ) + MSE(z, U_y)``,
    cosine ``s``, ``U_y`` the mean of class y's cluster prototypes. The mean is over the batch; as
    in the published code, a sample whose class has no prototype adds nothing.

    Args:
        features: (B, d).
        labels: (B,) int64.
        prototypes: any number of rows (d,) per class.
        temperature: T > 0.
    """
    known = torch.isin(labels, prototypes.labels)
    z, y = features[known], labels[known]
    scores = F.normalize(z, dim=1) @ F.normalize(prototypes.values, dim=1).T / temperature
    own = y[:, None] == prototypes.labels[None, :]
    positive = scores.masked_fill(~own, -torch.inf).logsumexp(dim=1)
    contrast = (scores.logsumexp(dim=1) - positive).sum()
    unbiased = own.to(z.dtype) @ prototypes.values / own.sum(dim=1, keepdim=True)
    consistency = (z - unbiased).square().mean(dim=1).sum()
    return (contrast + consistency) / len(labels)


def cluster(prototypes: PerClass) -> PerClass:
    """Replace each class's prototypes by the means of their clusters: FINCH, coarsest partition.

    Args:
        prototypes: the clients' rows (d,), any number per class.

    Returns:
        one row per cluster, the plain mean of its members; their counts add up.
    """
    parts = []
    for label in prototypes.labels.unique():
        rows = (prototypes.labels == label).nonzero().flatten()
        groups = torch.from_numpy(finch(prototypes.values[rows].double().numpy()))
        members = PerClass(groups, prototypes.values[rows], prototypes.counts[rows]).average()
        parts.append(PerClass(label.expand(len(members)), members.values, members.counts))
    return PerClass.concat(parts)


def finch(points: np.ndarray) -> np.ndarray:
    """Return the cluster of each row of ``points`` (n, d), as (n,) int64 from 0.

    A point and its first neighbour by cosine belong together. Clusters are merged by the same rule
    on their means until one would be left or nothing changes; the partition before that counts.
    """
    groups = _first_neighbour_groups(points)
    while True:
        count = int(groups.max()) + 1
        means = np.stack([points[groups == g].mean(axis=0) for g in range(count)])
        merged = _first_neighbour_groups(means)
        left = int(merged.max()) + 1
        if left == 1 or left == count:
            return groups
        groups = merged[groups]


def _first_neighbour_groups(points: np.ndarray) -> np.ndarray:
    n = len(points)
    if n == 1:
        return np.zeros(1, dtype=np.int64)
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    links = coo_array((np.ones(n), (np.arange(n), similarity.argmax(axis=1))), shape=(n, n))
    groups: np.ndarray = connected_components(links, directed=False)[1]
    return groups.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Fpl:
    """Add FPL's term; upload class means of the last epoch; cluster them on the server."""

    temperature: Annotated[float, Field(gt=0, description="temperature T; 0.02 as published")] = (
        0.02
    )
    weight: Annotated[float, Field(ge=0, description="factor of the term")] = 1.0

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {KEY: state.entries[KEY]} if KEY in state.entries else {}

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        gather(ctx, batch, output, KEY)
        if KEY not in ctx.payload:
            return {}
        prototypes = ctx.payload.per_class(KEY)
        loss = fpl_loss(output.features, batch.labels, prototypes, self.temperature)
        return {"fpl": self.weight * loss}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.upload(KEY, local_prototypes(ctx, KEY))
        return trained

    @hookimpl
    def server_update(self, reports: Sequence[Report]) -> ServerUpdate:
        uploads = PerClass.concat(r.uploads.per_class(KEY) for r in reports)
        clusters = cluster(uploads)
        metrics = {"fpl.clusters": float(len(clusters))}
        return ServerUpdate(entries={KEY: clusters}, metrics=metrics)
