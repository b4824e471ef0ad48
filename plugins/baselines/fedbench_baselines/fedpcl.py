"""FedPCL: features are contrasted with the class prototypes of all clients.

Tan, Long, Ma, Liu, Zhou, Jiang: Federated Learning from Pre-Trained Models: A Contrastive Learning
Approach, NeurIPS 2022.

There, clients hold frozen pre-trained backbones and train a projection without cross-entropy; here
features are those of the model in training, which is not the paper's setting. The loss is the
paper's as it is remembered (its text was not re-read), for one set of prototypes: the caller sums
over the global set and the clients' sets. The released code instead contrasts each sample's
prototype with the batch, which divides 0 by 0 when a class occurs once in a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench import PerClass


def prototype_contrast(
    features: Tensor, labels: Tensor, prototypes: PerClass, temperature: float
) -> Tensor:
    """Return the mean of ``-( s(z, p_y)/T - log sum_{c != y} exp(s(z, p_c)/T) )``, a scalar.

    ``s`` is the cosine similarity. The true class is not in the sum, so the loss may be negative. A
    sample adds nothing, but still counts in the mean, if its class has no prototype or if no other
    class has one.

    Args:
        features: z, (B, d).
        labels: y, (B,) int64.
        prototypes: one row (d,) per known class.
        temperature: T > 0.
    """
    same = labels[:, None] == prototypes.labels[None, :]
    unit = F.normalize(prototypes.values, dim=1)
    scores = F.normalize(features, dim=1) @ unit.T / temperature
    own = (scores * same).sum(dim=1)
    others = scores.masked_fill(same, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    contrasted = same.any(dim=1) & (~same).any(dim=1)
    return torch.where(contrasted, others - own, 0.0).mean()
