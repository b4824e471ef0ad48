"""From raw inputs to model inputs: the steps of every batch, in training and in testing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .types import Output, forward

if TYPE_CHECKING:
    import numpy as np

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


def shuffled(
    order: np.random.Generator, examples: int, sizes: Sequence[int], batches: int
) -> Iterator[tuple[Tensor, int, int]]:
    """Yield batches of random examples, in as many epochs as ``batches`` batches take.

    Args:
        order: where the order comes from; one permutation per epoch.
        examples: how many there are.
        sizes: of the batches of an epoch, see `batch_sizes`.
        batches: how many in all.

    Yields:
        positions (B,) int64, the epoch from 0, and the number of epochs.
    """
    epochs = -(-batches // len(sizes))
    for epoch in range(epochs):
        permutation = torch.from_numpy(order.permutation(examples))
        split = permutation[: sum(sizes)].split(list(sizes))
        for index in split[: batches - epoch * len(sizes)]:
            yield index, epoch, epochs


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``; a copy to a GPU uses pinned memory and does not block."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def evaluated(model: nn.Module, batches: Iterable[Tensor]) -> Output:
    """Run a model in evaluation mode and return its output for all batches of model inputs."""
    training = model.training
    model.eval()
    parts = [forward(model, inputs) for inputs in batches]
    model.train(training)
    features = torch.cat([part.features for part in parts])
    return Output(features, torch.cat([part.logits for part in parts]))


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
