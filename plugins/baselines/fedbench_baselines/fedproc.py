"""FedProc: a prototype contrast leads the training at first, cross-entropy at the end.

Mu, Shen, Cheng, Geng, Fu, Zhang, Zhang: FedProc: Prototypical contrastive federated learning on
non-IID data, Future Generation Computer Systems 143, 2023.

The local loss is ``alpha * CE + (1 - alpha) * contrast``. From the released code: no temperature,
``alpha`` reaches 1 after 100 rounds, and prototypes are sums of normalised features over all
clients' data, divided by the total count. That code computes features with a projection head, which
is absent here, and trains with cross-entropy alone in round 1. The paper's text was not re-read.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench import PerClass


def prototype_contrast(
    features: Tensor, labels: Tensor, prototypes: PerClass, temperature: float = 1.0
) -> Tensor:
    """Return the mean of ``-log( exp(s(z, p_y)/T) / sum_c exp(s(z, p_c)/T) )``, a scalar.

    ``s`` is the cosine similarity, and the sum is over the classes that have a prototype. A sample
    whose class has none adds nothing but still counts in the mean.

    Args:
        features: z, (B, d).
        labels: y, (B,) int64.
        prototypes: one row (d,) per known class.
        temperature: T > 0.
    """
    same = labels[:, None] == prototypes.labels[None, :]
    unit = F.normalize(prototypes.values, dim=1)
    scores = F.normalize(features, dim=1) @ unit.T / temperature
    losses = scores.logsumexp(dim=1) - (scores * same).sum(dim=1)
    return torch.where(same.any(dim=1), losses, 0.0).mean()


def mixing(round: int, horizon: int) -> float:
    """Return ``alpha``, the weight of cross-entropy: ``min((round - 1) / horizon, 1)``.

    Args:
        round: counted from 1, where the result is 0.
        horizon: completed rounds after which only cross-entropy is left, at least 1.
    """
    return min((round - 1) / horizon, 1.0)
