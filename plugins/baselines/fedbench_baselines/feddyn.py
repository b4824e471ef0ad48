"""FedDyn: each client's objective changes with its past, so that local and global optima agree.

Acar, Zhao, Matas, Mattina, Whatmough, Saligrama: Federated Learning Based on Dynamic
Regularization, ICLR 2021.

A client minimises ``F_k(w) - <q_k, w> + alpha/2 * ||w - w_t||^2``; its gradient state ``q_k`` and
the server's ``h`` start at zero and are shaped like the parameters. A client that misses rounds
keeps its ``q_k``. Means over clients are plain.

The released code keeps ``-q_k / alpha`` instead of ``q_k``, and its server step is then the same.
It scores the mean of the clients' last models, not the model from which clients start, which is the
one computed here. The paper's text was not re-read. Some public code adds the norm without the
square. When clients take part rarely, ``h`` may drift far; this is a property of the method.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fedbench import Weights

from .vectors import combined


def dynamic_term(
    params: Iterable[Tensor], anchor: Iterable[Tensor], gradient: Iterable[Tensor], alpha: float
) -> Tensor:
    """Return ``-<q, w> + alpha/2 * ||w - w_t||^2`` over all parameters, a scalar.

    Args:
        params: the local trainable parameters w.
        anchor: the received parameters w_t, in the same order, without gradient.
        gradient: the client's gradient state q, in the same order, without gradient.
        alpha: strength of the regulariser, > 0.
    """
    terms = [
        alpha / 2 * (w - a).square().sum() - (q * w).sum()
        for w, a, q in zip(params, anchor, gradient, strict=True)
    ]
    return torch.stack(terms).sum()


def client_gradient(
    gradient: Weights, trained: Weights, received: Weights, alpha: float
) -> Weights:
    """Return the client's new gradient state, ``q_k - alpha * (w_k - w_t)``.

    Args:
        gradient: q_k, trainable parameters by name, as all others.
        trained: w_k, at the end of the turn.
        received: w_t.
        alpha: as in `dynamic_term`.
    """
    return combined(lambda q, w, a: q - alpha * (w - a), gradient, trained, received)


def server_step(
    h: Weights,
    mean: Weights,
    received: Weights,
    participants: int,
    num_clients: int,
    alpha: float,
) -> tuple[Weights, Weights]:
    """Return the new global weights and the server's new state.

    The state is ``h - alpha / N * sum_k (w_k - w_t)`` over the round's clients; the weights are
    ``mean_k w_k - h_new / alpha``.

    Args:
        h: the server's state, trainable parameters by name, as all others.
        mean: the plain mean of the round's w_k.
        received: w_t.
        participants: the number of clients in ``mean``.
        num_clients: N, all clients, whether or not they took part in the round.
        alpha: as in `dynamic_term`.
    """
    share = participants / num_clients
    new = combined(lambda s, m, w: s - alpha * share * (m - w), h, mean, received)
    return combined(lambda m, s: m - s / alpha, mean, new), new
