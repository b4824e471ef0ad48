"""FedLC: cross-entropy of logits calibrated by the client's own class counts.

Zhang, Li, Qi, Yang, Xiang, Wang: Federated Learning with Label Distribution Skew via Logits
Calibration, ICML 2022. FedDecorr's code calls it FedLogitCal; the formula is the same.

The sum in the denominator includes the true class, as in all public code; without it, as other
people report of the paper's formula, the loss has no lower bound. The paper's text was not re-read.
A class that the client does not hold is left out of the softmax, so its row of the classifier gets
no gradient. Public code reaches the same by a count of 1e-8. Counts are the client's own: some code
sums them over all clients, which is a different method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import Batch, ClientContext, Output, Search, hookimpl

from .classification import ALONE, ROLE, class_counts


def calibrated_loss(logits: Tensor, labels: Tensor, counts: Tensor, tau: float) -> Tensor:
    """Return the mean cross-entropy of ``f_c - tau * n_c^(-1/4)``, a scalar.

    A sample of a class with count 0 adds nothing but still counts in the mean.

    Args:
        logits: f, (B, C).
        labels: (B,) int64.
        counts: n, (C,), the client's examples per class, not negative.
        tau: strength of the calibration; 0 is cross-entropy over the classes held.
    """
    shifts = -tau * counts.to(logits.dtype).clamp(min=1).pow(-0.25)
    return shifted_cross_entropy(logits, labels, shifts, counts > 0)


def shifted_cross_entropy(logits: Tensor, labels: Tensor, shifts: Tensor, held: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``logits + shifts`` over the classes held, a scalar.

    Args:
        logits: (B, C).
        labels: (B,) int64; a sample of a class not held adds nothing but counts in the mean.
        shifts: (C,), finite, added to every row.
        held: (C,) bool; other classes are left out of the softmax.
    """
    shifted = logits + shifts
    own = shifted.gather(1, labels[:, None]).squeeze(1)
    # The lowest number instead of minus infinity: without any class held there is no NaN either.
    total = shifted.masked_fill(~held, torch.finfo(shifted.dtype).min).logsumexp(dim=1)
    return torch.where(held[labels], total - own, 0.0).mean()


@dataclass(frozen=True, eq=False)
class FedLC:
    """Use the calibrated cross-entropy, with the client's own class counts, as the loss."""

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ALONE

    tau: Annotated[
        float,
        Field(
            ge=0,
            description="strength of the calibration, to be tuned; 0.1 in FedDecorr's code, 1 in "
            "other public code",
        ),
        Search(low=0.1, high=2, scale="log"),
    ] = 1.0

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        counts = class_counts(ctx)
        return {"fedlc": calibrated_loss(output.logits, batch.labels, counts, self.tau)}
