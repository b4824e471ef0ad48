"""FedExP: the server extrapolates; its step grows as the clients' updates disagree.

Jhunjhunwala, Wang, Joshi: FedExP: Speeding Up Federated Averaging via Extrapolation, ICLR 2023.

Here ``epsilon`` is used as it is given. The released code multiplies it by the number of clients
and, each round, by the squared decay of the learning rate; it weights clients by examples and
scores the mean of the last two iterates, while it trains from the last. The paper's text was not
re-read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedbench import Weights

from .vectors import squared_norm, weighted_sum


def step_size(deltas: Iterable[tuple[Weights, float]], epsilon: float) -> float:
    """Return ``max(1, sum_k p_k ||D_k||^2 / (2 (||D||^2 + epsilon)))`` with ``D = sum_k p_k D_k``.

    The new weights are ``w_t + step * D``. For one client, or when nothing moved, the step is 1.

    Args:
        deltas: per client, at least one: its update D_k = w_k - w_t, trainable parameters by name,
            and its share p_k; the shares add up to 1. Read once, one update in memory at a time.
        epsilon: keeps the step finite when updates cancel, > 0.
    """
    squares = 0.0

    def measured() -> Iterator[tuple[Weights, float]]:
        nonlocal squares
        for delta, share in deltas:
            squares += share * squared_norm(delta)
            yield delta, share

    mean = weighted_sum(measured())
    return max(1.0, squares / (2 * (squared_norm(mean) + epsilon)))
