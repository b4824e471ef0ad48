"""APFL: a client's model is a mix of a personal and a shared model, in a ratio that it can learn.

Deng, Kamani, Mahdavi: Adaptive Personalized Federated Learning, 2020 (arXiv). The formulas are as
remembered; the paper was not re-read.

The parameters are mixed, ``a v + (1 - a) w``, and v is trained through the mix. The released code
mixes the outputs of the two models instead, estimates the gradient of ``a`` as
``a g_v + (1 - a) g_w`` and adds ``0.02 a`` to it. PFLlib trains v on a loss of its own and merges w
into it after every turn. None of this is done here.
"""

from __future__ import annotations

import torch

from fedbench import Weights


def mix(personal: Weights, local: Weights, alpha: float) -> Weights:
    """Return ``alpha * v + (1 - alpha) * w``; gradients flow to both.

    The ends (``alpha`` 0 and 1) and the mix of two equal models are exact, bit for bit.

    Args:
        personal: v, trainable parameters by name.
        local: w, the client's copy of the shared model, under the same names.
        alpha: the share of the personal model, from 0 to 1.
    """
    return {k: torch.lerp(local[k], v, alpha) for k, v in personal.items()}


def alpha_step(
    alpha: float, personal: Weights, local: Weights, gradient: Weights, lr: float
) -> float:
    """Return ``alpha - lr * <v - w, g>``, clipped to 0..1.

    The product is the derivative of the loss with respect to ``alpha``, summed in float64.

    Args:
        alpha: the share of the personal model so far.
        personal: v, trainable parameters by name.
        local: w, under the same names.
        gradient: g, the gradient of the client's loss at the mix of both, under the same names.
        lr: the learning rate.
    """
    slope = sum(
        float(((v.double() - local[k].double()) * gradient[k].double()).sum())
        for k, v in personal.items()
    )
    return min(max(alpha - lr * slope, 0.0), 1.0)
