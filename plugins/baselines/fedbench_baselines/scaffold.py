"""SCAFFOLD: control variates correct each local step for the drift of the client.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning, ICML 2020.

A local step uses ``g(y) - c_k + c`` instead of the gradient ``g(y)``. Here ``c_k`` is the client's
control variate and ``c`` the server's; both are zero at the start and shaped like the parameters. A
client that misses rounds keeps its ``c_k``. Means are plain, and the server's variate is divided by
the number of all clients, not of the round's cohort.

No code by the authors was found, and the paper's text was not re-read. Some public versions start
from random control variates, divide by the steps of a single epoch or by a learning rate that was
not the one in use, or move ``c`` while the round's clients are still computing; ours does none of
these.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from torch import Tensor

from fedbench import Weights

from .vectors import combined, weighted_sum


def control_variate(
    client: Weights, server: Weights, received: Weights, trained: Weights, steps: int, lr: float
) -> Weights:
    """Return the client's new control variate, the paper's option II.

    It is ``c_k - c + (w_t - y) / (steps * lr)``. Under plain SGD this equals the mean of the raw
    minibatch gradients of the turn, that is, of ``g(y)`` before the correction. That mean needs
    neither ``steps`` nor ``lr`` and stays right with momentum and learning rate schedules, where
    this formula is wrong (with momentum rho it is too large by about ``1 / (1 - rho)``). Weight
    decay inside the optimiser is part of this formula but not of that mean.

    Args:
        client: c_k, trainable parameters by name, as all others.
        server: c, as received.
        received: w_t.
        trained: y, after the turn.
        steps: local steps of the turn, over all its epochs; at least 1.
        lr: the learning rate of these steps, > 0.
    """

    def formula(c_k: Tensor, c: Tensor, w: Tensor, y: Tensor) -> Tensor:
        return c_k - c + (w - y) / (steps * lr)

    return combined(formula, client, server, received, trained)


def server_variate(server: Weights, deltas: Iterable[Weights], num_clients: int) -> Weights:
    """Return the server's new control variate, ``c + 1/N * sum_k (c_k_new - c_k)``.

    Args:
        server: c.
        deltas: each cohort client's change of its control variate; read once.
        num_clients: N, all clients, whether or not they took part in the round.
    """
    changes = ((delta, 1 / num_clients) for delta in deltas)
    return weighted_sum(chain([(server, 1.0)], changes))
