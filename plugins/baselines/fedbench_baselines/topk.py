"""Top-k: send only the largest entries of an update; error feedback sends the others later.

Aji, Heafield: Sparse Communication for Distributed Gradient Descent, EMNLP 2017; Stich, Cordonnier,
Jaggi: Sparsified SGD with Memory, NeurIPS 2018. The papers were not re-read.

An entry of float32 costs 8 bytes with its index, so top-k saves bytes below half of the entries.
Without error feedback the result is biased, and training may stall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fedbench import ClientContext
from fedbench.codec import FeedbackCodec, Slot


def top_k(values: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Return the ``keep`` entries of the largest magnitude; of equal ones, the earlier.

    Args:
        values: (n,) floating-point, n < 2^31.
        keep: k, from 1 to n; larger is n.

    Returns:
        the entries (k,), of the same type, and their indices (k,) int32, ascending.
    """
    keep = min(keep, len(values))
    # Not `torch.topk`, which may choose any of several equal entries; sorting takes six times as
    # long. What is not finite is the largest.
    sizes = values.abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    least = sizes.kthvalue(len(values) - keep + 1).values
    kept = sizes > least
    kept[(sizes == least).nonzero().flatten()[: keep - int(kept.sum())]] = True
    indices = kept.nonzero().flatten()
    return values[indices], indices.int()


def compensate(update: Tensor, residual: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the top k of ``update + residual``, and what they leave for the next turn.

    Args:
        update: (n,) floating-point.
        residual: (n,), what earlier turns left; zeros at first.
        keep: k, as in `top_k`.

    Returns:
        entries (k,) and indices (k,) as in `top_k`, and the new residual (n,): 0 where sent.
    """
    left = update + residual
    values, indices = top_k(left, keep)
    return values, indices, left.index_fill_(0, indices.long(), 0)


def kept(n: int, ratio: float) -> int:
    """Return k for a vector of ``n`` entries: ``max(1, ceil(ratio n))``, ratio as it is written."""
    return max(1, math.ceil(Fraction(repr(ratio)) * n))


@dataclass(frozen=True, eq=False)
class TopK(FeedbackCodec):
    """Send only the largest entries of each tensor of an update, with error feedback.

    A tensor of which k entries are kept takes 8 k bytes; one that is kept whole travels as it is.
    """

    ratio: Annotated[
        float, Field(gt=0, le=1, description="share of each tensor's entries to send")
    ] = 0.1

    def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor] | None:
        """Return the largest entries and their indices."""
        keep = kept(len(values), self.ratio)
        if keep == len(values):
            return None
        entries, indices = top_k(values, keep)
        return {"values": entries, "indices": indices}

    def decode(self, parts: Mapping[str, Tensor], slot: Slot) -> Tensor:
        """Return the vector with zeros for the entries that were not sent."""
        whole = parts["values"].new_zeros(math.prod(slot.shape))
        return whole.index_copy_(0, parts["indices"].long(), parts["values"])
