"""Local prototypes: a client's mean feature of each class, gathered in the last local epoch.

As FedProto's and FPL's released codes take them: training-mode features of the training batches,
each from before the optimiser's step on it, augmented as training is.
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
    """Remember the features of the last epoch's batches under a scratch key."""
    if batch.epoch == batch.epochs - 1:
        ctx.scratch.setdefault(key, []).append(Gathered(output.features.detach(), batch.labels))


def local_prototypes(ctx: ClientContext, key: str) -> PerClass:
    """Return the mean of the gathered features (d,) for each class, with example counts.

    Raises:
        PluginError: when the trainer has given no batch of a last epoch to ``ctx.loss``.
    """
    if key not in ctx.scratch:
        raise PluginError(
            f"no features for {key!r} in {ctx.where}: prototypes come from the last epoch's "
            "batches, and ctx.loss got none with batch.epoch == batch.epochs - 1"
        )
    batches: list[Gathered] = ctx.scratch[key]
    features = torch.cat([gathered.features for gathered in batches])
    return PerClass.means(features, torch.cat([gathered.labels for gathered in batches]))
