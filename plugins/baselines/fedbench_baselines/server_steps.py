"""What the plugins share that move the global weights in their own way after aggregation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from fedbench import Weights

from .fedavg import EXCHANGED
from .robust import ROLE as ROBUST

ROLE = "server step"
"""The role of plugins that decide how the global weights move."""

AHEAD = "start ahead"
"""The role of those that send clients other weights than the global model's."""

ONE_STEP: Mapping[str, str] = {
    ROLE: "each defines the server's step from its own sums",
    **EXCHANGED,
}
"""What such plugins state as ``conflicts``."""

PLAIN_MEAN: Mapping[str, str] = {
    **ONE_STEP,
    ROBUST: "its server step is derived for the plain mean of all clients",
}
"""The same for those whose step needs the plain mean."""


def parameters(model: nn.Module, weights: Weights) -> Weights:
    """Return the entries of ``weights`` that are parameters of ``model``, in the model's order.

    Buffers (batch-norm statistics, counters) do not belong into a server step: they are averaged.
    """
    names = (name for name, _ in model.named_parameters())
    return {name: weights[name] for name in names if name in weights}


def zeros(model: nn.Module, weights: Weights) -> Weights:
    """Return zeros like the parameters of ``model``."""
    return {name: torch.zeros_like(w) for name, w in parameters(model, weights).items()}
