"""Attacks by malicious clients: wrong labels, hidden or reversed updates, backdoors.

- Label flipping: labels are reversed (``C - 1 - y``) or moved to the next class.
- ALIE: Baruch, Baruch, Goldberg: A Little Is Enough: Circumventing Defenses For Distributed
  Learning, NeurIPS 2019. As in the released code, the standard deviation is the population's, over
  the malicious clients' own honest updates.
- IPM: Xie, Koyejo, Gupta: Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product
  Manipulation, UAI 2019.
- Model replacement: Bagdasaryan, Veit, Hua, Estrin, Shmatikov: How To Backdoor Federated Learning,
  AISTATS 2020. Stamped images: Gu, Dolan-Gavitt, Garg: BadNets: Identifying Vulnerabilities in the
  Machine Learning Model Supply Chain, 2017 (arXiv).

The papers were not re-read. ALIE's factor is that of other public code. Attacks act on updates, the
differences to the received weights, not on weights.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor

from fedbench import ConfigError, Weights


def flip_labels(labels: Tensor, num_classes: int, form: Literal["reverse", "next"]) -> Tensor:
    """Return ``C - 1 - y`` (``reverse``; a middle class stays) or ``(y + 1) mod C`` (``next``).

    Args:
        labels: y, (n,) int64.
        num_classes: C.
        form: which of the two.
    """
    return num_classes - 1 - labels if form == "reverse" else (labels + 1) % num_classes


def flip_pair(labels: Tensor, source: int, target: int) -> Tensor:
    """Return the labels (n,) with every ``source`` replaced by ``target``."""
    return torch.where(labels == source, target, labels)


def alie(points: Tensor, factor: float, unbiased: bool = False) -> Tensor:
    """Return ``mean - factor * std`` per coordinate, what every malicious client sends.

    Args:
        points: (m, n), the malicious clients' honest updates, m >= 1. With m = 1 the standard
            deviation is 0.
        factor: z; see `alie_factor`.
        unbiased: divide the variance by m - 1 instead of m, as other public code does.

    Returns:
        (n,), of the same type, computed in float64.
    """
    wide = points.double()
    std = wide.std(dim=0, correction=int(unbiased and len(points) > 1))
    return (wide.mean(dim=0) - factor * std).to(points.dtype)


def alie_factor(num_clients: int, byzantine: int) -> float:
    """Return ALIE's largest factor that is still expected to go unnoticed.

    It is the standard normal quantile of ``(n - m - s) / (n - m)``, where
    ``s = floor(n / 2 + 1) - m`` is how many honest clients a majority still needs. It is negative
    when few clients are malicious.

    Args:
        num_clients: n, all clients of a round.
        byzantine: m, the malicious ones among them.

    Raises:
        ConfigError: when the quantile is infinite: if n < 3, or the malicious clients are more than
            half of all and need no others.
    """
    supporters = num_clients // 2 + 1 - byzantine
    honest = num_clients - byzantine
    if byzantine < 0 or supporters < 1 or supporters >= honest:
        raise ConfigError(
            f"alie: no factor follows from {num_clients} clients with {byzantine} malicious ones; "
            "it needs at least 3 clients, at most half of them malicious. Set a fixed factor"
        )
    return NormalDist().inv_cdf((honest - supporters) / honest)


def ipm(points: Tensor, epsilon: float) -> Tensor:
    """Return ``-epsilon`` times the mean of the honest updates.

    Args:
        points: (K, n), the honest clients' updates: the attacker knows them all.
        epsilon: small values hide the attack. With H honest and m malicious clients, the plain mean
            changes its direction if ``epsilon > H / m``.

    Returns:
        (n,), of the same type, computed in float64.
    """
    return (-epsilon * points.double().mean(dim=0)).to(points.dtype)


def replace_model(received: Weights, trained: Weights, factor: float) -> Weights:
    """Return ``w_t + factor * (w_k - w_t)``: with K clients and ``factor`` K, the mean becomes w_k.

    That holds if the others change nothing; A attackers together use ``K / A``. A ``factor`` of 1
    returns w_k, bit for bit.

    Args:
        received: w_t, floating-point tensors by name.
        trained: w_k, the model with the backdoor, under the same names.
        factor: gamma.
    """
    return {k: torch.lerp(w, trained[k], factor) for k, w in received.items()}


def stamp(inputs: Tensor, size: int, value: int) -> Tensor:
    """Return a copy of the images with a square of one colour in the lower right corner.

    Args:
        inputs: (n, channels, height, width) uint8.
        size: the square's side in pixels.
        value: what to write into all channels, from 0 to 255.

    Raises:
        ConfigError: when the square is empty or does not fit into the images.
    """
    height, width = inputs.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise ConfigError(
            f"stamp: a square of {size} x {size} pixels does not fit into images of "
            f"{height} x {width}; size must be from 1 to {min(height, width)}"
        )
    stamped = inputs.clone()
    stamped[..., height - size :, width - size :] = value
    return stamped
