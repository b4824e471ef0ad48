"""What plugins bring: protocols that mypy checks, with shapes and units.

Core calls a plugin's classes only through these. A class need not inherit from its protocol; it
needs the attributes and methods.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Metric(Protocol):
    """A number, or one number per class, from class scores and labels."""

    higher_is_better: bool

    def __call__(self, scores: Tensor, labels: Tensor) -> float | list[float]:
        """Score ``scores`` (N, C) against ``labels`` (N,) of one domain's test data."""
        ...
