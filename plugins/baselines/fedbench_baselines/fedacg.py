"""FedACG: the server sends its weights moved ahead by its momentum, and clients stay near them.

Kim, Kim, Han: Communication-Efficient Federated Learning with Accelerated Client Gradient, CVPR
2024.

Clients start from ``w_t + factor * m`` and add ``beta * ||w - (w_t + factor * m)||^2``, which is
``2 * beta`` times `.fedprox.proximal_term`: there is no factor 1/2. The new global weights are the
plain mean of the clients' weights. From the released code: the model that is scored is ``w``, not
the one moved ahead. The paper's text was not re-read.
"""

from __future__ import annotations

from fedbench import Weights

from .vectors import combined


def server_momentum(momentum: Weights, mean: Weights, lookahead: Weights, factor: float) -> Weights:
    """Return the new momentum, ``factor * m + mean_k w_k - (w_t + factor * m)``.

    It equals ``mean_k w_k - w_t``: the momentum is the last movement of the global weights.

    Args:
        momentum: m, trainable parameters by name, as all others; zero at the start.
        mean: the plain mean of the round's w_k.
        lookahead: ``w_t + factor * m``, which the clients received.
        factor: lambda, in [0, 1).
    """
    return combined(lambda m, w, ahead: factor * m + w - ahead, momentum, mean, lookahead)
