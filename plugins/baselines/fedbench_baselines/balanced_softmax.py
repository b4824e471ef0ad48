"""Balanced softmax, or logit adjustment, with each client's own class shares, as a local loss.

Ren, Yu, Sheng, Ma, Zhao, Yi, Li: Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS
2020; Menon, Jayasumana, Rawat, Jain, Veit, Kumar: Long-tail learning via logit adjustment, ICLR
2021.

Both are methods for central training; the shares here are the client's. Predictions use the plain
logits. A class that the client does not hold is left out of the softmax. The papers' texts were not
re-read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fedbench import Batch, ClientContext, Output, Search, hookimpl

from .classification import ALONE, ROLE, class_counts
from .fedlc import shifted_cross_entropy


def balanced_loss(logits: Tensor, labels: Tensor, counts: Tensor, tau: float = 1.0) -> Tensor:
    """Return the mean cross-entropy of ``f_c + tau * log(n_c / n)``, a scalar.

    A sample of a class with count 0 adds nothing but still counts in the mean.

    Args:
        logits: f, (B, C).
        labels: (B,) int64.
        counts: n_c, (C,), the client's examples per class, not negative; n is their sum.
        tau: 1 is balanced softmax; 0 is cross-entropy over the classes held.
    """
    numbers = counts.to(logits.dtype)
    shares = numbers.clamp(min=1) / numbers.sum().clamp(min=1)
    return shifted_cross_entropy(logits, labels, tau * shares.log(), counts > 0)


@dataclass(frozen=True, eq=False)
class BalancedSoftmax:
    """Use the cross-entropy of logits adjusted by the client's class shares as the loss."""

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ALONE

    tau: Annotated[
        float,
        Field(ge=0, description="strength of the adjustment; 1 is balanced softmax"),
        Search(low=0.1, high=2, scale="log"),
    ] = 1.0

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        loss = balanced_loss(output.logits, batch.labels, class_counts(ctx), self.tau)
        return {"balanced_softmax": loss}
