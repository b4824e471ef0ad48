"""Ditto: FedAvg, and besides it a personal model per client that is kept near the global one.

Li, Hu, Beirami, Smith: Ditto: Fair and Robust Federated Learning Through Personalization, ICML
2021. The formula was not re-read in the paper; it agrees with the released code.

Client k's personal model minimises ``F_k(v) + lambda/2 * ||v - w_t||^2``. As in the released code,
``w_t`` is the received model during the whole turn, not the one that the client is training. That
code tries 0.1, 1 and 2 for ``lambda`` and keeps the best per client on validation data, or uses 1.
"""

from __future__ import annotations

from fedbench import Weights


def personal_step(
    personal: Weights, gradient: Weights, received: Weights, lr: float, weight: float
) -> Weights:
    """Return ``v - lr * (g + weight * (v - w_t))``, one step of the personal model.

    With ``weight`` 0, this is a step of SGD, and the personal model is trained locally only.

    Args:
        personal: v, trainable parameters by name.
        gradient: g, the gradient of the client's loss at v, under the same names.
        received: w_t, under the same names.
        lr: the learning rate; the step is stable only if ``lr * weight < 2``.
        weight: lambda, the weight of the proximal term.
    """
    return {k: v - lr * (gradient[k] + weight * (v - received[k])) for k, v in personal.items()}
