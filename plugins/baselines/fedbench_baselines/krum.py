"""Krum and Multi-Krum: keep the clients whose vectors lie nearest to most of the others.

Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent, NeurIPS 2017. The paper was not re-read.

Krum returns the vector with the lowest score, Multi-Krum the plain mean of the m lowest. Scores sum
*squared* distances to the ``K - f - 2`` nearest others. ALIE's authors sum unsquared distances to
``K - f`` others; another public version squares twice and returns the sum of the m vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedbench import ConfigError


def scores(points: Tensor, byzantine: int) -> Tensor:
    """Return each client's sum of squared distances to its ``K - byzantine - 2`` nearest others.

    Distances are over the whole vector, in float64, and exactly 0 between equal vectors.

    Args:
        points: (K, n), one client's vector per row. All clients are needed at once, in float64,
            which takes the memory of 2 K models of float32.
        byzantine: f, how many clients may be malicious.

    Returns:
        (K,), of the same type; low is good.

    Raises:
        ConfigError: when ``K < 2 f + 3`` or ``f < 0``.
    """
    clients = len(points)
    if byzantine < 0 or clients < 2 * byzantine + 3:
        raise ConfigError(
            f"krum: byzantine = {byzantine} needs at least {2 * max(byzantine, 0) + 3} clients in "
            f"every round, and there are {clients}; byzantine must be from 0 to (clients - 3) / 2"
        )
    wide = points.double()
    distances = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").square()
    others = distances.fill_diagonal_(torch.inf).sort(dim=1).values
    return others[:, : clients - byzantine - 2].sum(dim=1).to(points.dtype)


def select(points: Tensor, byzantine: int, keep: int) -> Tensor:
    """Return the ``keep`` clients with the lowest scores, best first; of equal ones, the earlier.

    Args:
        points: (K, n), as in `scores`.
        byzantine: f, as in `scores`.
        keep: m, from 1 to K; 1 is Krum.

    Returns:
        (keep,) int64, rows of ``points``.

    Raises:
        ConfigError: as in `scores`, and when ``keep`` is not from 1 to K.
    """
    if not 1 <= keep <= len(points):
        raise ConfigError(f"krum: keep = {keep} must be from 1 to {len(points)}, the clients")
    # As float64: two scores that differ must not become equal by rounding.
    return scores(points.double(), byzantine).sort(stable=True).indices[:keep]
