"""Pictures of features and class anchors in a plane, and of the anchors' similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench import PerClass, ServerContext
from fedbench.pictures import HeatMap, Picture, Scatter

from .representations import plane, similarity

CLASSES = 100
"""Rows of the heat map."""


def pictures(
    observed: Sequence[Mapping[str, Tensor]],
    anchors: PerClass | None,
    ctx: ServerContext,
    most: int,
) -> tuple[Picture, ...]:
    """Return a round's pictures.

    Args:
        observed: each client's ``features`` (n, d), ``labels`` (n,) and ``domains`` (n,).
        anchors: rows (d,); ``None`` without any.
        ctx: the server's context, for names.
        most: how many features are shown; a random choice if there are more.
    """
    features, labels, domains = (
        torch.cat([one[key] for one in observed]) for key in ("features", "labels", "domains")
    )
    chosen = torch.randperm(len(labels), generator=ctx.rng("anchor_diagnostics/points"))[:most]
    places = features[chosen], labels[chosen], domains[chosen]
    scatter = projection(*places, anchors, ctx.classes, ctx.domains)
    return (scatter, heat_map(anchors, ctx.classes)) if anchors else (scatter,)


def projection(
    features: Tensor,
    labels: Tensor,
    domains: Tensor,
    anchors: PerClass | None,
    classes: Sequence[str],
    domain_names: Sequence[str],
) -> Scatter:
    """Return unit features and unit anchors on the two principal axes of the features.

    Args:
        features: (n, d).
        labels: (n,) int64.
        domains: (n,) int64.
        anchors: rows (d,); ``None`` without any.
        classes: the classes' names.
        domain_names: the domains' names.
    """
    unit = F.normalize(features.double(), dim=1)
    mean, axes = plane(unit)
    rows, which = [unit], labels
    shapes = [domain_names[int(v)] for v in domains]
    if anchors:
        rows.append(F.normalize(anchors.values.double(), dim=1))
        which = torch.cat([labels, anchors.labels])
        shapes += [""] * len(anchors)
    x, y = ((torch.cat(rows) - mean) @ axes.T).T.tolist()
    return Scatter(
        name="features",
        title="Features and class anchors",
        caption="Features of clients' training examples, by class (colour) and domain (shape), "
        "under each client's model after its training; large: the class anchors that the clients "
        "received. All have unit length; axes are the features' two principal ones in the round.",
        x=tuple(round(value, 4) for value in x),
        y=tuple(round(value, 4) for value in y),
        colours=tuple(classes[int(c)] for c in which),
        shapes=tuple(shapes),
    )


def heat_map(anchors: PerClass, classes: Sequence[str]) -> HeatMap:
    """Return the cosines of the classes' anchors, at most of the first `CLASSES` classes."""
    labels, cosines = similarity(anchors)
    names = tuple(classes[int(c)] for c in labels[:CLASSES])
    values = cosines[:CLASSES, :CLASSES].tolist()
    return HeatMap(
        name="anchors",
        title="Similarity of class anchors",
        caption="Cosine of the mean directions of two classes' anchors.",
        low=-1.0,
        high=1.0,
        rows=names,
        columns=names,
        values=tuple(tuple(round(value, 4) for value in row) for row in values),
    )
