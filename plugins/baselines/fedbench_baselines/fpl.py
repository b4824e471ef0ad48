"""FPL: several prototypes per class, found by clustering, for data with domain shift.

Huang, Ye, Shi, Li, Du: Rethinking Federated Learning with Domain Shift: A Prototype View, CVPR
2023, equations 4 to 9. Clustering is FINCH (Sarfraz, Sharma, Stiefelhagen: Efficient Parameter-free
Clustering Using First Neighbor Relations, CVPR 2019, equation 1).

Local prototypes are those of `.prototypes`. As in the released code, only the current round's
clients count: a class that none of them holds has no prototype in the next round. The released code
stops with an error if classes differ in their numbers of clusters, if a batch has none of the known
classes, or if only one class is known; here all three cases work.
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

from .prototypes import gather, local_prototypes

KEY = "fpl.prototypes"


def fpl_loss(features: Tensor, labels: Tensor, prototypes: PerClass, temperature: float) -> Tensor:
    """Return FPL's term, a scalar: cluster prototype contrast plus unbiased prototype consistency.

    The loss of a sample is
    ``-log( sum_{p in P_y} exp(s(z,p)/T) / sum_{all p} exp(s(z,p)/T) ) + MSE(z, U_y)``, where ``s``
    is the cosine similarity and ``U_y`` the mean of class y's cluster prototypes. The result is the
    mean over the batch. As in the published code, a sample whose class has no prototype adds
    nothing.

    Args:
        features: (B, d).
        labels: (B,) int64.
        prototypes: any number of rows (d,) per class.
        temperature: T > 0.
    """
    same = labels[:, None] == prototypes.labels[None, :]
    known = same.any(dim=1, keepdim=True)
    # A sample of an unknown class gets all prototypes as its own, so its contrast is exactly 0.
    # Selecting rows instead would make a GPU wait for the host.
    own = same | ~known
    unit = F.normalize(prototypes.values, dim=1)
    scores = F.normalize(features, dim=1) @ unit.T / temperature
    positive = scores.masked_fill(~own, -torch.inf).logsumexp(dim=1)
    contrast = (scores.logsumexp(dim=1) - positive).sum()
    unbiased = own.to(features.dtype) @ prototypes.values / own.sum(dim=1, keepdim=True)
    consistency = ((features - unbiased) * known).square().mean(dim=1).sum()
    return (contrast + consistency) / len(labels)


def cluster(prototypes: PerClass) -> PerClass:
    """Replace each class's prototypes with the means of their clusters: FINCH, coarsest partition.

    Args:
        prototypes: the clients' rows (d,), any number per class.

    Returns:
        one row per cluster: the plain mean of its members, with the sum of their counts.
    """
    parts = []
    for label in prototypes.labels.unique():
        rows = (prototypes.labels == label).nonzero().flatten()
        groups = finch(prototypes.values[rows])
        members = PerClass(groups, prototypes.values[rows], prototypes.counts[rows]).average()
        parts.append(PerClass(label.expand(len(members)), members.values, members.counts))
    return PerClass.concat(parts)


def finch(points: Tensor) -> Tensor:
    """Return the cluster of each row of ``points`` (n, d): (n,) int64, numbered from 0.

    In the first partition, every point is in the same cluster as its first neighbour by cosine. The
    means of the clusters are then grouped by the same rule, and so on. The coarsest partition is
    the last one before only a single cluster would be left. Two or three points are always one
    cluster. Cosines are computed in float64; in the authors' float32, a different one of two close
    neighbours can come first.
    """
    points = points.double()
    groups = _with_first_neighbours(points)
    while True:
        merged = _with_first_neighbours(PerClass.means(points, groups).values)
        if int(merged.max()) == 0:
            return groups
        groups = merged[groups]


def _with_first_neighbours(points: Tensor) -> Tensor:
    n = len(points)
    unit = F.normalize(points, dim=1)
    # A single point is its own neighbour: the argmax of one -inf.
    first = (unit @ unit.T).fill_diagonal_(-torch.inf).argmax(dim=1).numpy()
    # Imported here, because importing SciPy would delay the start of every run.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array(([1] * n, (range(n), first)), shape=(n, n))
    return torch.from_numpy(connected_components(links, directed=False)[1]).long()


@dataclass(frozen=True, eq=False)
class Fpl:
    """Add FPL's term; upload the class means of the last epoch; cluster them on the server."""

    anchors: ClassVar[tuple[str, ...]] = (KEY,)

    temperature: Annotated[
        float,
        Field(gt=0, description="temperature T; the released code's default is 0.1"),
        Search(low=0.01, high=0.5, scale="log"),
    ] = 0.02
    weight: Annotated[float, Field(ge=0, description="weight of the term")] = 1.0

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
