"""Local prototypes: a client's mean feature of each class, gathered in the last local epoch.

They are computed as in the released code of FedProto and FPL: from the training batches, with
training augmentation, in training mode, each batch before the optimiser's step on it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fedbench import Batch, ClientContext, Output, PerClass, PluginError


class Gathered(NamedTuple):
    """One batch of the last local epoch.

    Attributes:
        features: (B, d), without gradient.
        labels: (B,) int64.
    """

    features: Tensor
    labels: Tensor


def gather(ctx: ClientContext, batch: Batch, output: Output, key: str) -> None:
    """Keep a batch of the last epoch in the scratch under ``key``; ignore other batches."""
    if batch.epoch == batch.epochs - 1:
        now = Gathered(output.features.detach(), batch.labels)
        # A new list, so that a pass that is not recorded leaves the gathered ones as they were.
        ctx.scratch[key] = [*ctx.scratch.get(key, ()), now]


def local_prototypes(ctx: ClientContext, key: str) -> PerClass:
    """Return the mean of the gathered features for each class, rows (d,) with example counts.

    Raises:
        PluginError: if the trainer passed no batch of a last epoch to ``ctx.loss``.
    """
    if key not in ctx.scratch:
        raise PluginError(
            f"no features for {key!r} in {ctx.where}: prototypes are computed from the batches of "
            "the last epoch, but ctx.loss received none with batch.epoch == batch.epochs - 1"
        )
    batches: list[Gathered] = ctx.scratch[key]
    features = torch.cat([gathered.features for gathered in batches])
    return PerClass.means(features, torch.cat([gathered.labels for gathered in batches]))
