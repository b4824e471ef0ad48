"""From raw inputs to model inputs: the steps of every batch, in training and in testing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .plugins.hooks import RunPlugins

EVAL_BATCH = 100
"""Examples per forward pass outside training on a CPU; more are no faster and need much memory."""


def eval_batch(device: torch.device) -> int:
    """Return how many examples run through a model at once outside training."""
    return EVAL_BATCH if device.type == "cpu" else 10 * EVAL_BATCH


def batch_sizes(examples: int, batch_size: int, drop_last: bool = False) -> list[int]:
    """Return the sizes of the batches of one epoch, in order.

    With ``drop_last``, a last batch that is smaller is left out unless it is the only one.
    """
    whole, rest = divmod(examples, batch_size)
    return [batch_size] * whole + [rest] * (rest > 0 and not (drop_last and whole > 0))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``; a copy to a GPU uses pinned memory and does not block."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Pipeline:
    """Turns raw inputs into model inputs: on the device, float in [0, 1], transformed."""

    def __init__(
        self, plugins: RunPlugins, device: torch.device, rng: Callable[[str], torch.Generator]
    ) -> None:
        self._device = device
        # Separate streams, so that evaluating data never changes what training draws.
        self._steps = [
            (
                call,
                {train: rng(f"transform/{n}{'' if train else '/test'}") for train in (True, False)},
            )
            for n, call in plugins.calls("transform")
        ]

    def __call__(self, inputs: Tensor, train: bool) -> Tensor:
        """Return model inputs (B, ...); uint8 becomes float in [0, 1], other types are kept."""
        x = send(inputs, self._device)
        if x.dtype == torch.uint8:
            x = x.float().div_(255)
        elif x is inputs and self._steps:
            x = x.clone()  # a transform may change its input in place
        for call, streams in self._steps:
            x = call(inputs=x, train=train, rng=streams[train])
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
