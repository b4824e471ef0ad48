"""FedRS: restricted softmax, which weakens the updates of classes that a client does not hold.

Li, Zhan: FedRS: Federated Learning with Restricted Softmax for Label Distribution Non-IID Data, KDD
2021.

``presence`` is the paper's form as it is remembered (its text was not re-read). ``counts`` is that
of the released code, which scales even held classes, by their counts. That code has a classifier
without bias; here whole logits are scaled, bias included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedbench import Batch, ClientContext, Output, Search, hookimpl

from .classification import ALONE, ROLE, class_counts


def scales(counts: Tensor, alpha: float, form: Literal["presence", "counts"]) -> Tensor:
    """Return the factor of each class's logit, (C,), in torch's default floating-point type.

    Args:
        counts: n, (C,), the client's examples per class, not negative.
        alpha: the factor of a class that the client does not hold, in [0, 1]; 1 is cross-entropy.
        form: ``presence`` has factor 1 for every class held; ``counts`` has
            ``alpha + (1 - alpha) * n_c / max n``.
    """
    numbers = counts.to(torch.get_default_dtype())
    held = numbers.clamp(max=1) if form == "presence" else numbers / numbers.amax().clamp(min=1)
    return alpha + (1 - alpha) * held


def restricted_loss(logits: Tensor, labels: Tensor, scales: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``scales * logits``, a scalar.

    Args:
        logits: (B, C).
        labels: (B,) int64.
        scales: (C,), see the function `scales`.
    """
    return F.cross_entropy(logits * scales.to(logits.dtype), labels)


@dataclass(frozen=True, eq=False)
class FedRS:
    """Use the cross-entropy of the restricted softmax as the loss."""

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ALONE

    alpha: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="factor of the logits of classes that the client does not hold; the "
            "released code tries 0.9, 0.5 and 0.1",
        ),
        Search(choices=(0.1, 0.5, 0.9)),
    ] = 0.5
    form: Annotated[
        Literal["presence", "counts"],
        Field(
            description="presence leaves the classes held as they are; counts, as in the released "
            "code, scales them by their numbers of examples"
        ),
    ] = "presence"

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        factors = scales(class_counts(ctx), self.alpha, self.form)
        return {"fedrs": restricted_loss(output.logits, batch.labels, factors)}
