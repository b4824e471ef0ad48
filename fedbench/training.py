"""One pass of the trainer over a client's data: `ClientContext.train` makes it, `train` runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .types import Batch

if TYPE_CHECKING:
    from .context import ClientContext

Only = Callable[[str], bool]
"""Called with a parameter's or buffer's name; returns whether a pass may change it."""


@dataclass
class Meter:
    """Counts the examples that a turn trains on, over all its epochs, passes and attempts."""

    examples: int = 0


class Training:
    """One pass of the trainer: what the hook ``train`` gets as ``work``.

    Attributes:
        model: the model to train, in training mode.
        parameters: those to train, in the model's order.
        record: whether it is the turn's own pass: its loss terms are reported, and plugins see its
            gradients in ``after_backward``. A pass that a plugin adds for itself is not recorded.
        lr: the learning rate; the trainer sets it, ``None`` where it has no single one.
        momentum: the momentum; the trainer sets it, ``None`` where it has none of SGD's kind.
        steps: how many steps have been taken.
    """

    def __init__(
        self,
        ctx: ClientContext,
        loss: Callable[[Batch], Tensor],
        *,
        only: Only | None = None,
        epochs: int | Callable[[int], int] | None = None,
        steps: int | None = None,
        stream: str = "",
        record: bool = True,
    ) -> None:
        self._ctx, self._loss = ctx, loss
        self._epochs, self._wanted, self._stream = epochs, steps, stream
        self.model, self.record = ctx.model, record
        self.parameters = [
            parameter
            for name, parameter in ctx.model.named_parameters()
            if parameter.requires_grad and (only is None or only(name))
        ]
        self.lr: float | None = None
        self.momentum: float | None = None
        self.steps = 0

    def batches(
        self,
        batch_size: int,
        epochs: int,
        drop_last: bool = False,
        max_steps: int | None = None,
    ) -> Iterator[Batch]:
        """Yield shuffled, transformed batches; each is a step, counted when the next is asked for.

        Args:
            batch_size: examples per batch.
            epochs: passes over the client's data, unless the pass asks for another number.
            drop_last: whether a last batch that is smaller is left out, unless it is the only one.
            max_steps: at most so many batches, unless the pass asks for a number of steps.
        """
        stretch = self._wanted is not None
        steps = self._wanted if stretch else max_steps
        if callable(self._epochs):
            epochs = max(1, self._epochs(epochs))
        elif self._epochs is not None:
            epochs = self._epochs
        for batch in self._ctx.batches(
            batch_size, epochs, drop_last, self._stream, steps=steps, stretch=stretch
        ):
            yield batch
            self.steps += 1
            self._ctx.meter.examples += len(batch.labels)

    def end(self) -> None:
        """Let go of the turn, which holds this pass: a cycle would keep its tensors in memory."""
        del self._ctx, self._loss

    def backward(self, batch: Batch) -> None:
        """Compute the gradients of one batch; plugins see them if the pass is recorded."""
        for parameter in self.parameters:
            parameter.grad = None
        loss = self._loss(batch)
        with self._ctx.phase("backward"):
            loss.backward()
        if self.record:
            self._ctx.after_backward(batch)


@contextmanager
def frozen(model: nn.Module, only: Only | None) -> Iterator[None]:
    """Keep every parameter and buffer of ``model`` that ``only`` does not name, bit for bit."""
    if only is None:
        yield
        return
    still = [p for n, p in model.named_parameters() if not only(n) and p.requires_grad]
    buffers = [(b, b.clone()) for n, b in model.named_buffers() if not only(n)]
    for parameter in still:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
