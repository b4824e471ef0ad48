"""Local prototypes: a client's mean feature of each class, gathered in the last local epoch."""

from __future__ import annotations

import torch

from fedbench import Batch, ClientContext, Output, PerClass


def gather(ctx: ClientContext, batch: Batch, output: Output, key: str) -> None:
    """Remember the features of the last epoch's batches under a scratch key."""
    if batch.epoch == batch.epochs - 1:
        ctx.scratch.setdefault(key, []).append((output.features.detach(), batch.labels))


def local_prototypes(ctx: ClientContext, key: str) -> PerClass:
    """Return the mean of the gathered features (d,) for each class, with example counts."""
    features, labels = zip(*ctx.scratch[key], strict=True)
    return PerClass.means(torch.cat(features), torch.cat(labels))
