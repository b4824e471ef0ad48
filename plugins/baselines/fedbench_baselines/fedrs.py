"""FedRS: restricted softmax, which weakens the updates of classes that a client does not hold.

Li, Zhan: FedRS: Federated Learning with Restricted Softmax for Label Distribution Non-IID Data, KDD
2021.

``presence`` is the paper's form as it is remembered (its text was not re-read). ``counts`` is that
of the released code, which scales even held classes, by their counts. That code has a classifier
without bias; here whole logits are scaled, bias included.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


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
