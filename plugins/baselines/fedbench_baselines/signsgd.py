"""signSGD: one bit per entry, and one scale.

Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD: Compressed Optimisation for Non-Convex
Problems, ICML 2018 (scale 1); Karimireddy, Rebjock, Stich, Jaggi: Error Feedback Fixes SignSGD and
other Gradient Compression Schemes, ICML 2019 (scale: the mean magnitude). The papers were not
re-read.

A tensor of n entries of float32 takes ``ceil(n / 8) + 4`` bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def encode(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return one bit per entry, 1 where it is at least 0, and the mean magnitude.

    Args:
        values: (n,) floating-point, n >= 1.

    Returns:
        the bits, (ceil(n / 8),) uint8, the first entry in the highest bit, the last byte padded
        with 0 (as `numpy.packbits`), and the scale (), of the type of ``values``.
    """
    bits = F.pad((values >= 0).to(torch.uint8), (0, -len(values) % 8)).reshape(-1, 8)
    packed = (bits << _places(values.device)).sum(dim=1, dtype=torch.uint8)
    return packed, values.double().abs().mean().to(values.dtype)


def decode(packed: Tensor, scale: Tensor, n: int) -> Tensor:
    """Return ``scale`` where the bit is 1 and ``-scale`` where it is 0: (n,), of the same type.

    Args:
        packed: (ceil(n / 8),) uint8, from `encode`.
        scale: (), from `encode`, or 1.
        n: the number of entries.
    """
    bits = (packed[:, None] >> _places(packed.device)) & 1
    return torch.where(bits.flatten()[:n].bool(), scale, -scale)


def _places(device: torch.device) -> Tensor:
    """Return the places of a byte's bits, the highest first: (8,) uint8."""
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
