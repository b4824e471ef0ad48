"""FedAvgM: the server applies momentum to the mean update of its clients.

Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification, 2019 (arXiv 1909.06335).

The paper's text was not re-read. Some public code multiplies the mean update by
``1 - momentum``, which makes steps ten times smaller at momentum 0.9; here it enters undamped.
"""

from __future__ import annotations

from fedbench import Weights

from .vectors import combined


def momentum_step(
    weights: Weights, mean: Weights, velocity: Weights, lr: float, momentum: float
) -> tuple[Weights, Weights]:
    """Return the new weights ``w_t + lr * v_new`` and ``v_new = momentum * v + (mean - w_t)``.

    With ``lr = 1`` and ``momentum = 0`` the new weights are ``mean``.

    Args:
        weights: w_t, trainable parameters by name, as all others.
        mean: the aggregate of the clients' weights.
        velocity: v, zero at the start.
        lr: the server's learning rate, > 0.
        momentum: in [0, 1).
    """
    new = combined(lambda v, w, m: momentum * v + (m - w), velocity, weights, mean)
    return combined(lambda w, v: w + lr * v, weights, new), new
