"""What the losses on labels have in common: their role in a run, and the client's class counts."""

from __future__ import annotations

import torch
from torch import Tensor

from fedbench import ClientContext

ROLE = "classification loss"
ALONE = {ROLE: "each is the classification loss"}
"""Conflicts of a plugin whose term takes the place of the cross-entropy."""

FIXED = "fixed classifier"
"""The role of plugins whose clients do not train the classifier."""

COUNTS = "classification.counts"


def class_counts(ctx: ClientContext) -> Tensor:
    """Return how many examples of each class the client holds, (C,) int64, on its device."""
    if COUNTS not in ctx.scratch:  # counted and sent to the device once per turn
        counts = torch.bincount(ctx.data.labels, minlength=ctx.num_classes)
        ctx.scratch[COUNTS] = counts.to(ctx.device)
    counted: Tensor = ctx.scratch[COUNTS]
    return counted
