"""Local training by SGD, and the classification loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import sgd as functional

from fedbench.context import ClientContext, ServerContext
from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.pipeline import batch_sizes
from fedbench.training import Training
from fedbench.types import Batch, Output, forward


@dataclass(frozen=True, eq=False)
class Sgd:
    """Train the client's model by stochastic gradient descent on the sum of all loss terms."""

    lr: Annotated[float, Field(gt=0, description="learning rate")] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty on all weights")] = 1e-5
    epochs: Annotated[int, Field(ge=1, description="local epochs per round")] = 5
    batch_size: Annotated[int, Field(ge=1, description="examples per batch")] = 64
    drop_last: Annotated[bool, Field(description="leave out a last batch that is smaller")] = False
    schedule: Annotated[
        Literal["constant", "cosine"],
        Field(description="learning rate over the rounds; cosine falls to 0 after the last round"),
    ] = "constant"

    @hookimpl
    def run_start(self, ctx: ServerContext, model: nn.Module, inputs: Tensor) -> None:
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
        if self.batch_size == 1:
            return "sgd.batch_size is 1", "set a larger sgd.batch_size"
        several = [client for client in clients if sizes[client] > 1]
        client, *others = several or clients
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        names = ", ".join(map(str, others[:3])) + more
        also = f" (also {'clients' if others[1:] else 'client'} {names})" if others else ""
        if several:
            return (
                f"client {client} has {sizes[client]} examples, so its last batch of "
                f"sgd.batch_size {self.batch_size} has one{also}",
                "set sgd.drop_last=true or another sgd.batch_size",
            )
        return (
            f"client {client} has one example{also}",
            "partition the data so that every client has more, or use a model without batch norm",
        )

    @hookimpl
    def train(self, ctx: ClientContext, work: Training) -> bool:
        momenta: list[Tensor | None] = [None] * len(work.parameters)
        lr = work.lr = self.learning_rate(ctx.round, ctx.rounds)
        work.momentum = self.momentum
        for batch in work.batches(self.batch_size, self.epochs, self.drop_last):
            work.backward(batch)
            with ctx.phase("optimiser"):
                step(work.parameters, momenta, lr, self.momentum, self.weight_decay)
        return True

    def learning_rate(self, round: int, rounds: int) -> float:
        """Return the learning rate of ``round``, which counts from 1."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * (round - 1) / rounds)) / 2


@torch.no_grad()
def training_error(model: nn.Module, inputs: Tensor) -> ValueError | None:
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


@torch.no_grad()
def step(
    weights: Sequence[Tensor],
    momenta: list[Tensor | None],
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """Take one step of `torch.optim.SGD`, bit for bit; change weights and momenta in place.

    The optimiser's constructor would load PyTorch's compiler, which costs every worker more than a
    second and 90 MB.

    Args:
        weights: parameters; those without a gradient are unchanged.
        momenta: one per weight, of its shape, ``None`` before the weight's first step.
        lr: learning rate.
        momentum: factor of the momenta, 0 for none.
        weight_decay: L2 penalty.
    """
    used = [i for i, w in enumerate(weights) if w.grad is not None]
    kept = [momenta[i] for i in used]
    functional.sgd(
        [weights[i] for i in used],
        [g for i in used if (g := weights[i].grad) is not None],
        kept,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
    for i, value in zip(used, kept, strict=True):
        momenta[i] = value


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """Add the mean cross-entropy of the classifier's logits."""

    weight: Annotated[float, Field(ge=0, description="weight of the term")] = 1.0
    label_smoothing: Annotated[
        float, Field(ge=0, le=1, description="share of the uniform distribution in the targets")
    ] = 0.0

    @hookimpl
    def local_loss(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        loss = F.cross_entropy(output.logits, batch.labels, label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss if self.weight == 1 else self.weight * loss}
