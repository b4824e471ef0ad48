"""Arithmetic on `Weights` as vectors, for methods whose server step is more than a mean.

Everything is computed in float64. Nothing here writes to its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fedbench import Weights


def combined(formula: Callable[..., Tensor], first: Weights, *others: Weights) -> Weights:
    """Apply ``formula`` to the tensors of each name; the results have the types of ``first``.

    Args:
        formula: a function from one float64 tensor of each mapping to a tensor of the same shape.
        first: decides the names and types.
        others: hold at least these names.

    Raises:
        KeyError: when another mapping lacks a name of ``first``.
    """
    return {
        name: formula(w.double(), *(other[name].double() for other in others)).to(w.dtype)
        for name, w in first.items()
    }


def difference(minuend: Weights, subtrahend: Weights) -> Weights:
    """Return ``minuend - subtrahend`` in float64, with the names of ``minuend``."""
    return {name: w.double() - subtrahend[name].double() for name, w in minuend.items()}


PART = 1 << 17
"""Elements that `add` handles at once: in float64 they fit a core's cache."""


def accumulate(sums: dict[str, Tensor], weights: Weights, factor: float) -> None:
    """Add ``factor * weights`` to ``sums`` in place, in float64; names that it lacks are added."""
    for name, w in weights.items():
        if name in sums:
            add(sums[name], w, factor)
        else:
            copy = w.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
            sums[name] = copy.mul_(factor)


def add(total: Tensor, more: Tensor, factor: float) -> None:
    """Add ``factor * more`` to ``total`` in place, in the type of ``total``.

    PyTorch converts ``more`` as a whole before it adds. Part by part, the converted numbers stay in
    the cache, and large tensors are added three times as fast, with the same bits.

    Args:
        total: contiguous.
        more: of the same shape.
        factor: a number.
    """
    if total.numel() <= PART:
        total.add_(more, alpha=factor)
        return
    parts = zip(total.view(-1).split(PART), more.reshape(-1).split(PART), strict=True)
    for part, added in parts:
        part.add_(added, alpha=factor)


def weighted_sum(items: Iterable[tuple[Weights, float]]) -> Weights:
    """Return ``sum_k a_k w_k`` over at least one pair (w_k, a_k), read once; the first one's types.

    Raises:
        ValueError: for no pair at all.
    """
    first: Weights | None = None
    sums: dict[str, Tensor] = {}
    for weights, factor in items:
        first = first or weights
        accumulate(sums, {name: weights[name] for name in first}, factor)
    if first is None:
        raise ValueError("a weighted sum needs at least one item, got none")
    return {name: total.to(first[name].dtype) for name, total in sums.items()}


def squared_norm(weights: Weights) -> float:
    """Return the squared 2-norm over all elements of all tensors together."""
    return sum(float(w.double().square().sum()) for w in weights.values())


def flat(weights: Weights) -> Tensor:
    """Return all floating-point elements as one vector (n,), ordered by name; see `restored`.

    Two mappings with the same names and shapes have the same order, however they were built.
    """
    return torch.cat([weights[name].reshape(-1) for name in _floating(weights)])


def restored(vector: Tensor, like: Weights) -> Weights:
    """Return the weights that `flat` turned into ``vector`` (n,).

    Args:
        vector: one number per floating-point element of ``like``.
        like: decides names, shapes and types; its integer buffers are taken over as they are.

    Raises:
        ValueError: when the number of elements differs.
    """
    names = _floating(like)
    sizes = [like[name].numel() for name in names]
    if vector.shape != (sum(sizes),):
        raise ValueError(f"expected a vector of {sum(sizes)} numbers, got {tuple(vector.shape)}")
    parts = dict(zip(names, vector.split(sizes), strict=True))
    return {
        name: parts[name].reshape(w.shape).to(w.dtype, copy=True) if name in parts else w
        for name, w in like.items()
    }


def _floating(weights: Weights) -> list[str]:
    return sorted(name for name, w in weights.items() if w.is_floating_point())
