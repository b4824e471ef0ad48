"""FedAdagrad, FedAdam and FedYogi: an adaptive optimiser on the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan: Adaptive Federated Optimization,
ICLR 2021.

The rule here is the paper's algorithm 2 as it is remembered; its text was not re-read. It has no
bias correction. The authors' experiments used Keras optimisers, which is a different rule: with
Adam's bias correction and accumulators that start at 0. Only trainable parameters belong here: such
steps would make running variances negative.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedbench import Weights

from .vectors import combined


def adaptive_step(
    weights: Weights,
    mean: Weights,
    m: Weights,
    v: Weights,
    rule: Literal["adagrad", "adam", "yogi"],
    lr: float,
    beta1: float,
    beta2: float,
    tau: float,
) -> tuple[Weights, Weights, Weights]:
    """Return the new weights, first moment and second moment.

    With ``D = mean - w_t`` and element by element: ``m <- beta1 m + (1 - beta1) D``; ``v`` becomes
    ``v + D^2`` (adagrad), ``beta2 v + (1 - beta2) D^2`` (adam) or
    ``v - (1 - beta2) D^2 sign(v - D^2)`` (yogi); the weights are
    ``w_t + lr * m / (sqrt(v) + tau)`` with the new ``m`` and ``v``.

    Args:
        weights: w_t, trainable parameters by name, as all others.
        mean: the aggregate of the clients' weights.
        m: first moment, zero at the start.
        v: second moment, not negative; ``tau ** 2`` at the start.
        rule: how ``v`` changes.
        lr: the server's learning rate, > 0.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1); adagrad ignores it.
        tau: adaptivity, > 0.
    """

    def second(v: Tensor, w: Tensor, mean: Tensor) -> Tensor:
        square = (mean - w).square()
        if rule == "adagrad":
            return v + square
        if rule == "adam":
            return beta2 * v + (1 - beta2) * square
        return v - (1 - beta2) * square * torch.sign(v - square)

    new_m = combined(lambda m, w, mean: beta1 * m + (1 - beta1) * (mean - w), m, weights, mean)
    new_v = combined(second, v, weights, mean)
    moved = combined(lambda w, m, v: w + lr * m / (v.sqrt() + tau), weights, new_m, new_v)
    return moved, new_m, new_v
