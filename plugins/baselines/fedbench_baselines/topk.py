"""Top-k: send only the largest entries of an update; error feedback sends the others later.

Aji, Heafield: Sparse Communication for Distributed Gradient Descent, EMNLP 2017; Stich, Cordonnier,
Jaggi: Sparsified SGD with Memory, NeurIPS 2018. The papers were not re-read.

An entry of float32 costs 8 bytes with its index, so top-k saves bytes below half of the entries.
Without error feedback the result is biased, and training may stall.
"""

from __future__ import annotations

from torch import Tensor


def top_k(values: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Return the ``keep`` entries of the largest magnitude; of equal ones, the earlier.

    Args:
        values: (n,) floating-point, n < 2^31.
        keep: k, from 1 to n; larger is n.

    Returns:
        the entries (k,), of the same type, and their indices (k,) int32, ascending.
    """
    # Not `torch.topk`, which may choose any of several equal entries.
    order = values.abs().sort(descending=True, stable=True).indices
    indices = order[:keep].sort().values
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
