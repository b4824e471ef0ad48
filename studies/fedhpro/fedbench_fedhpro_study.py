"""Variants of FedHPro that answer one question each; the study's grids compare them.

They are not methods of anybody, so they are not in fedbench itself:

- ``fedhpro-means`` and ``fedhpro-clusters``: FedHPro's local loss with averaged or clustered class
  prototypes as anchors, in place of hyper-prototypes. Nothing else differs from FedHPro without
  recalibration, so the three kinds of anchors are compared under the same loss.
- ``last_client``: the fault of the released code, whose average is the last client's weights.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from fedbench_baselines.fpl import cluster
from fedbench_fedhpro.losses import Hpcl, consistency, contrast
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedbench import (
    Batch,
    ClientContext,
    ClientResult,
    Output,
    PerClass,
    Recipe,
    Report,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)

fedbench_api = 1

KEY = "study.prototypes"
SOURCE = "a variant of FedHPro (Wang et al., ICML 2026) for its study; not a published method"


@dataclass(frozen=True, eq=False)
class PrototypeAnchors:
    """Exchange class prototypes: the means of each client's features, averaged or clustered.

    A client's prototypes are those of its examples after training, in evaluation mode. As in
    FedProto and FPL, only the current round's clients count.
    """

    anchors = (KEY,)

    kind: Annotated[
        Literal["means", "clusters"],
        Field(description="the plain mean over clients, as in FedProto, or FINCH, as in FPL"),
    ] = "means"

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {KEY: state.entries[KEY]} if KEY in state.entries else {}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        output, labels = ctx.embed()
        ctx.upload(KEY, PerClass.means(output.features, labels))
        return trained

    @hookimpl
    def server_update(self, reports: Sequence[Report]) -> ServerUpdate:
        rows = PerClass.concat(r.uploads.per_class(KEY) for r in reports)
        return ServerUpdate(
            entries={KEY: cluster(rows) if self.kind == "clusters" else rows.average()}
        )


def class_rows(rows: PerClass, num_classes: int, unit: bool) -> tuple[Tensor, Tensor]:
    """Return each class's mean row (C, d), zero for an unknown class, and which are known (C,).

    Args:
        rows: any number of rows (d,) per class.
        num_classes: C.
        unit: whether to normalise the rows first.
    """
    values = F.normalize(rows.values, dim=1) if unit else rows.values
    means = PerClass(rows.labels, values, rows.counts).average()
    found = values.new_zeros(num_classes, values.shape[1])
    known = torch.zeros(num_classes, dtype=torch.bool, device=values.device)
    found[means.labels], known[means.labels] = means.values, True
    return found, known


@dataclass(frozen=True, eq=False)
class PrototypeLosses(Hpcl):
    """Add FedHPro's two terms, with the class prototypes of `PrototypeAnchors` as anchors.

    Nothing is added in the first round, when there are no prototypes, nor for samples of classes
    that have none; the contrast is with the known classes.
    """

    requires = ("class_batches", "prototype_anchors")

    hpal_weight: Annotated[float, Field(ge=0, description="weight of the consistency term")] = 1.0

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if KEY not in ctx.payload:
            return {}
        rows = ctx.payload.per_class(KEY)
        anchors, known = class_rows(rows, ctx.num_classes, unit=True)
        means, _ = class_rows(rows, ctx.num_classes, unit=False)
        chosen = known[batch.labels]
        z, y = output.features[chosen], known.cumsum(0)[batch.labels[chosen]] - 1
        if not len(y):
            return {}
        margin = self._margin(ctx, batch)
        share = len(y) / len(batch.labels)
        pulled = contrast(z, y, anchors[known], self.temperature, margin, self.reduction)
        near = consistency(z, y, F.normalize(means[known], dim=1))
        return {"hpcl": share * self.weight * pulled, "hpal": share * self.hpal_weight * near}


@dataclass(frozen=True, eq=False)
class LastClient:
    """Take the last client's weights as the global ones: what the released FedHPro code does."""

    @hookimpl
    def aggregate(self, results: Iterator[ClientResult]) -> Weights:
        last = max(results, key=lambda result: result.client)
        return last.uploads.weights()


@hookimpl
def register_plugins() -> Mapping[str, type]:
    """Return the variants' plugins."""
    return {
        "prototype_anchors": PrototypeAnchors,
        "prototype_losses": PrototypeLosses,
        "last_client": LastClient,
    }


def _recipe(kind: str) -> Recipe:
    plugins = {
        **{name: {} for name in ("exchange", "mean", "class_batches")},
        "prototype_anchors": {"kind": kind},
        "cross_entropy": {},
        "prototype_losses": {"margin": "round"},
    }
    return Recipe(
        plugins, f"FedHPro's local loss with class {kind} as anchors", SOURCE, family="prototypes"
    )


@hookimpl
def register_recipes() -> Mapping[str, Recipe]:
    """Return FedHPro's loss with the two other kinds of anchors."""
    return {f"fedhpro-{kind}": _recipe(kind) for kind in ("means", "clusters")}
