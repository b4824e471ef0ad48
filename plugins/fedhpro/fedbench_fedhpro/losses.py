"""FedHPro's local loss terms: contrast with hyper-prototypes (HPCL) and alignment (HPAL)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedbench.context import ClientContext
from fedbench.hookspecs import hookimpl
from fedbench.options import Search
from fedbench.types import Batch, Output, PerClass

from .class_batches import SCRATCH as SAMPLES
from .class_batches import real_samples

MARGIN = "hpcl.margin"


class Margin(NamedTuple):
    """A client's margin, and the part of the turn for which it was computed.

    Attributes:
        stretch: identifies that part of the turn; different for every other part.
        value: the margin.
    """

    stretch: object
    value: float


def hpcl(
    features: Tensor,
    labels: Tensor,
    hyper_prototypes: Tensor,
    temperature: float,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Return HPCL, the contrastive loss with a client-specific margin (FedHPro, ICML 2026).

    The loss of a sample is ``log(sum_c exp(s_c) + margin) - s_y``, where
    ``s_c = z/|z| . u_c / temperature`` and ``u_c`` is the mean of class c's normalised
    hyper-prototypes.

    Args:
        features: (B, d).
        labels: (B,) int64.
        hyper_prototypes: (C, M, d).
        temperature: > 0.
        margin: added to the sum if it is positive; see `client_margin`.
        reduction: ``mean`` over the batch, or ``published``, which divides by B once more.

    Returns:
        a scalar.
    """
    anchors = F.normalize(hyper_prototypes, dim=2).mean(dim=1)
    return contrast(features, labels, anchors, temperature, margin, reduction)


def contrast(
    features: Tensor,
    labels: Tensor,
    anchors: Tensor,
    temperature: float,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Return `hpcl` for given anchors ``u`` (C, d), one per class; the others are as there."""
    scores = F.normalize(features, dim=1) @ anchors.T / temperature
    total = torch.logsumexp(scores, dim=1)
    if margin > 0:
        total = torch.logaddexp(total, total.new_tensor(math.log(margin)))
    loss = (total - scores.gather(1, labels[:, None]).squeeze(1)).mean()
    return loss / len(labels) if reduction == "published" else loss


def hpal(features: Tensor, labels: Tensor, hyper_prototypes: Tensor) -> Tensor:
    """Return HPAL, the smooth L1 loss between unit features and unit class means (FedHPro).

    Args:
        features: (B, d).
        labels: (B,) int64.
        hyper_prototypes: (C, M, d); a class mean is the mean of a class's M.

    Returns:
        a scalar, the mean over all B x d elements.
    """
    return consistency(features, labels, F.normalize(hyper_prototypes.mean(dim=1), dim=1))


def consistency(features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    """Return `hpal` for given unit class means (C, d); the others are as there."""
    return F.smooth_l1_loss(F.normalize(features, dim=1), means[labels])


def client_margin(class_means: Tensor, num_classes: int) -> float:
    """Return a client's margin, ``sum_{c != c'} <p_c, p_c'> / (C - 1)^2`` (FedHPro).

    Args:
        class_means: (n, d), the client's mean feature p_c of each class that it holds.
        num_classes: C, all classes.
    """
    products = class_means @ class_means.T
    off_diagonal = products.sum() - products.diagonal().sum()
    return float(off_diagonal) / max(1, num_classes - 1) ** 2


@dataclass(frozen=True, eq=False)
class Hpcl:
    """Add FedHPro's mutual-contrastive term: features against all classes' hyper-prototypes.

    The margin is computed from the client's class means under its current model. With
    ``margin: round`` these are the means of the class batches, which ran through the model before
    training. With ``epoch`` and ``batch``, and when a client trains outside of its turns, all of
    its examples run through it again.
    """

    # Class batches are read only with ``margin: round``, but hyper_prototypes needs them anyway.
    requires = ("class_batches", "hyper_prototypes")

    temperature: Annotated[
        float,
        Field(gt=0, description="temperature T"),
        Search(low=0.01, high=0.5, scale="log"),
    ] = 0.05
    weight: Annotated[
        float,
        Field(ge=0, description="weight of the term"),
        Search(low=0.1, high=10, scale="log"),
    ] = 1.0
    reduction: Annotated[
        Literal["mean", "published"],
        Field(
            description="mean over the batch, or, as in the released code, that mean divided by B "
            "once more"
        ),
    ] = "mean"
    margin: Annotated[
        Literal["off", "round", "epoch", "batch"],
        Field(
            description="how often the client's margin is computed: once per round, from the class "
            "batches; once per epoch or batch, from all examples; off for no margin"
        ),
    ] = "round"

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        anchors = ctx.payload.tensor("hyper_prototypes")
        loss = hpcl(
            output.features,
            batch.labels,
            anchors,
            self.temperature,
            self._margin(ctx, batch),
            self.reduction,
        )
        return {"hpcl": self.weight * loss}

    def _margin(self, ctx: ClientContext, batch: Batch) -> float:
        """Return the margin, computed again only when the option says so."""
        if self.margin == "off":
            return 0.0
        now = {"round": 0, "epoch": batch.epoch, "batch": object()}[self.margin]
        known: Margin = ctx.scratch.get(MARGIN, Margin(None, 0.0))
        stretch, value = known
        if stretch == now:
            return value
        value = client_margin(self._class_means(ctx), ctx.num_classes)
        ctx.scratch[MARGIN] = Margin(now, value)
        return value

    def _class_means(self, ctx: ClientContext) -> Tensor:
        """Return the client's class means (n, d) under its current model."""
        if self.margin == "round" and SAMPLES in ctx.scratch:  # drawn in turns only
            first = real_samples(ctx)[0]
            return PerClass.means(first.features, first.labels).values
        output, labels = ctx.embed()
        return PerClass.means(output.features, labels).values


@dataclass(frozen=True, eq=False)
class Hpal:
    """Add FedHPro's consistency term: features near their class's mean hyper-prototype."""

    requires = ("hyper_prototypes",)

    weight: Annotated[float, Field(ge=0, description="weight of the term")] = 1.0

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        anchors = ctx.payload.tensor("hyper_prototypes")
        return {"hpal": self.weight * hpal(output.features, batch.labels, anchors)}
