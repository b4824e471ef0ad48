"""What all trainers share: their loop, batches, learning rate over the rounds, and clipping.

A trainer is a `Trainer` with a function `Trainer.optimiser`, which returns the optimiser's step;
`fedbench_baselines.sgd.Sgd` and `fedbench_baselines.adam.Adam` are examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import nn

from fedbench.context import ClientContext, ServerContext
from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.options import Search
from fedbench.pipeline import batch_sizes
from fedbench.training import Training
from fedbench.types import forward

ADAPTIVE = "adaptive trainer"
"""The role of trainers whose steps are not a learning rate times a gradient or its momentum."""

Step: TypeAlias = Callable[[float], None]
"""Takes one step of an optimiser with a learning rate, in place; it keeps the momenta of a pass."""

Schedule: TypeAlias = Literal["constant", "cosine", "step", "exponential"]


def scheduled(
    lr: float,
    round: int,
    rounds: int,
    schedule: Schedule,
    warmup: int,
    decay: float,
    decay_rounds: int,
) -> float:
    """Return the learning rate of a round.

    In the first ``warmup`` rounds it rises in equal steps: ``lr * round / (warmup + 1)``. With t
    the rounds since then, from 0, it is ``lr`` times 1 (constant), ``(1 + cos(pi t / T)) / 2`` with
    T the rounds after the warm-up (cosine), ``decay ** floor(t / decay_rounds)`` (step), or
    ``decay ** (t / decay_rounds)`` (exponential).

    Args:
        lr: the full learning rate.
        round: from 1.
        rounds: how many rounds the run has.
        schedule: which of the four.
        warmup: rounds before the full learning rate.
        decay: in (0, 1], for step and exponential.
        decay_rounds: how many rounds one ``decay`` takes, for step and exponential.
    """
    if round <= warmup:
        return lr * round / (warmup + 1)
    since = round - 1 - warmup
    if schedule == "cosine":
        return lr * (1 + math.cos(math.pi * since / (rounds - warmup))) / 2
    if schedule == "step":
        return lr * math.pow(decay, since // decay_rounds)
    if schedule == "exponential":
        return lr * math.pow(decay, since / decay_rounds)
    return lr


@dataclass(frozen=True, eq=False)
class Trainer:
    """The loop of a trainer, with the options of all trainers; an optimiser adds its step."""

    lr: Annotated[
        float,
        Field(gt=0, description="learning rate"),
        Search(low=1e-3, high=1e-1, scale="log"),
    ] = 0.01
    epochs: Annotated[int, Field(ge=1, description="local epochs per round")] = 5
    batch_size: Annotated[int, Field(ge=1, description="examples per batch")] = 64
    drop_last: Annotated[bool, Field(description="leave out a last batch that is smaller")] = False
    max_steps: Annotated[
        int | None, Field(ge=1, description="at most so many steps per round, whatever epochs is")
    ] = None
    clip_norm: Annotated[
        float | None,
        Field(
            gt=0, description="largest 2-norm of a step's gradient, over all parameters together"
        ),
    ] = None
    schedule: Annotated[
        Schedule,
        Field(
            description="learning rate over the rounds: cosine falls to 0 after the last round, "
            "step falls by decay every decay_rounds rounds, exponential at that rate every round"
        ),
    ] = "constant"
    warmup: Annotated[
        int, Field(ge=0, description="rounds in which the learning rate rises to lr, before them")
    ] = 0
    decay: Annotated[
        float, Field(gt=0, le=1, description="factor of the schedules step and exponential")
    ] = 0.5
    decay_rounds: Annotated[
        int, Field(ge=1, description="rounds per decay, for the schedules step and exponential")
    ] = 10

    def optimiser(self, work: Training) -> Step:
        """Return the optimiser's step for one pass; set ``work.momentum`` if it is SGD's."""
        raise NotImplementedError

    @hookimpl
    def run_start(self, ctx: ServerContext, model: nn.Module, inputs: torch.Tensor) -> None:
        alone = [
            client
            for client, n in enumerate(ctx.client_sizes)
            if 1 in batch_sizes(n, self.batch_size, self.drop_last)
        ]
        error = training_error(model, inputs) if alone else None
        if error:
            what, mend = self._batch_of_one(alone, ctx.client_sizes)
            raise ConfigError(
                f"{what}; batch norm cannot train on a single example ({error}): {mend}"
            )

    def _batch_of_one(self, clients: Sequence[int], sizes: Sequence[int]) -> tuple[str, str]:
        """Say how the batch of one of ``clients`` comes about, and how to avoid it."""
        name = type(self).__name__.lower()
        if self.batch_size == 1:
            return f"{name}.batch_size is 1", f"set a larger {name}.batch_size"
        several = [client for client in clients if sizes[client] > 1]
        client, *others = several or clients
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        names = ", ".join(map(str, others[:3])) + more
        also = f" (also {'clients' if others[1:] else 'client'} {names})" if others else ""
        if several:
            return (
                f"client {client} has {sizes[client]} examples, so its last batch of "
                f"{name}.batch_size {self.batch_size} has one{also}",
                f"set {name}.drop_last=true or another {name}.batch_size",
            )
        return (
            f"client {client} has one example{also}",
            "partition the data so that every client has more, or use a model without batch norm",
        )

    @hookimpl
    def train(self, ctx: ClientContext, work: Training) -> bool:
        lr = work.lr = self.learning_rate(ctx.round, ctx.rounds)
        step = self.optimiser(work)
        for batch in work.batches(self.batch_size, self.epochs, self.drop_last, self.max_steps):
            work.backward(batch)
            with ctx.phase("optimiser"):
                if self.clip_norm is not None:
                    nn.utils.clip_grad_norm_(work.parameters, self.clip_norm)
                step(lr)
        return True

    def learning_rate(self, round: int, rounds: int) -> float:
        """Return the learning rate of ``round``, which counts from 1."""
        return scheduled(
            self.lr,
            round,
            rounds,
            self.schedule,
            self.warmup,
            self.decay,
            self.decay_rounds,
        )


@torch.no_grad()
def training_error(model: nn.Module, inputs: torch.Tensor) -> ValueError | None:
    """Return the error of a forward pass in training mode, or ``None``; leave ``model`` as it was.

    Args:
        model: a `fedbench.types.Model`.
        inputs: (B, ...). Norms raise a ``ValueError`` when they get one value per channel.
    """
    buffers, training = [buffer.clone() for buffer in model.buffers()], model.training
    try:
        forward(model.train(), inputs)
    except ValueError as error:
        return error
    finally:
        model.train(training)
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return None
