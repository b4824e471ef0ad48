"""FedGH: the server trains a shared classifier on the class means that clients upload.

Yi, Wang, Liu, Shi, Yu: FedGH: Heterogeneous Federated Learning with Generalized Global Header, ACM
Multimedia 2023.

Extractors stay with the clients, and the trained head replaces theirs. In the released code the
server's optimiser holds a client's parameters, so that the shared head never moves, and gradients
are never cleared; here the head is trained by SGD of its own, as the paper says. The paper's text
was not re-read.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench import PerClass


def train_head(
    weight: Tensor,
    bias: Tensor,
    prototypes: PerClass,
    epochs: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return weight and bias after plain SGD on cross-entropy of the pairs (mean, class).

    Args:
        weight: (C, d), on the CPU, like all tensors.
        bias: (C,).
        prototypes: the clients' class means (d,), any number of rows per class, each one example.
        epochs: passes over all rows.
        batch_size: rows per step; the last step of an epoch may have fewer.
        lr: learning rate.
        generator: source of the batches' order.
    """
    weight, bias = weight.detach().clone(), bias.detach().clone()
    values = prototypes.values.to(weight.dtype)
    onehot = F.one_hot(prototypes.labels, len(weight)).to(weight.dtype)
    for _ in range(epochs):
        order = torch.randperm(len(values), generator=generator)
        batches = (part[order].split(batch_size) for part in (values, onehot))
        for z, y in zip(*batches, strict=True):
            slopes = (torch.addmm(bias, z, weight.T).softmax(dim=1) - y) / len(z)
            weight.addmm_(slopes.T, z, alpha=-lr)
            bias.sub_(slopes.sum(dim=0), alpha=lr)
    return weight, bias
