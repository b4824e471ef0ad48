"""FedNTD: a client keeps what the global model knows about the classes that are not true.

Lee, Jeong, Shin, Bae, Yun: Preservation of the Global Knowledge by Not-True Distillation in
Federated Learning, NeurIPS 2022.

The teacher is the received model on the same augmented batch. The released code never sets the
teacher's mode; with batch norm it has to run in evaluation mode, which is up to the caller. The
paper's text was not re-read.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def ntd_loss(logits: Tensor, global_logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 * KL(global || local)`` between softmaxes over the not-true classes, a scalar.

    The result is the mean over the batch. The gradient flows through ``logits`` alone. With two
    classes, one is left and the loss is 0.

    Args:
        logits: (B, C), of the model in training.
        global_logits: (B, C), of the received model.
        labels: (B,) int64, the true classes.
        temperature: T > 0.
    """
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = others + (others >= labels[:, None])  # (B, C - 1): all classes but the true one
    student = (logits.gather(1, others) / temperature).log_softmax(dim=1)
    teacher = (global_logits.detach().gather(1, others) / temperature).log_softmax(dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
