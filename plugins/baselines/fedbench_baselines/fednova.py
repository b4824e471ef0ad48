"""FedNova: clients that make more local steps do not pull the mean towards their own optimum.

Wang, Liu, Liang, Joshi, Poor: Tackling the Objective Inconsistency Problem in Heterogeneous
Federated Optimization, NeurIPS 2020.

Each client's update is divided by ``a_k``, the sum of the weights with which its local gradients
entered the update. The mean of these is multiplied by one effective number of steps. With equal
numbers of steps and no proximal term it is FedAvg. Momentum buffers must start at zero each round.

From the released code: the effective number of steps is the mean of ``a_k``, but with a proximal
term the mean of the plain step counts. The paper's text was not re-read. The released optimiser
adds the proximal gradient to the momentum buffer in place, and counts a step twice when momentum
and the proximal term are both used. Here the proximal term is the plugin `.fedprox`, a part of the
loss, so that its gradient goes through the momentum buffer too, and ``a_k`` takes that into
account. The released code's global momentum is `.fedavgm`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import (
    ClientContext,
    ClientResult,
    ConfigError,
    ServerContext,
    ServerState,
    Weights,
    hookimpl,
)

from .fedavg import weighted_mean
from .fedprox import STRENGTH
from .server_steps import PLAIN_MEAN, ROLE, parameters
from .trainers import ADAPTIVE
from .vectors import combined, difference, weighted_sum

KEY = "fednova.steps"


def normalizer(
    steps: int, momentum: float = 0.0, proximal: float = 0.0, *, in_loss: bool = False
) -> float:
    """Return ``a_k``, by which a client's update is divided.

    For plain SGD this is ``steps``. In general it is what ``v <- momentum * v + 1`` and
    ``a <- (1 - proximal) * a + v``, repeated ``steps`` times from zero, return as ``a``.

    Args:
        steps: local steps, at least 1.
        momentum: of the local optimiser, in [0, 1), without dampening and not Nesterov's.
        proximal: learning rate times the proximal term's ``mu``, in [0, 1).
        in_loss: whether the proximal term is a part of the loss, so that its gradient enters the
            momentum buffer: then ``v <- momentum * v + 1 - proximal * a`` and ``a <- a + v``, which
            is the same without momentum.
    """
    a = v = 0.0
    for _ in range(steps):
        pull = proximal * a
        v = momentum * v + 1 - (pull if in_loss else 0)
        a = a + v - (0 if in_loss else pull)
    return a


def normalized_mean(
    received: Weights, items: Iterable[tuple[Weights, float, float, float]]
) -> Weights:
    """Return the new global weights, ``w_t + tau * sum_k p_k (w_k - w_t) / a_k``, of what was sent.

    Here ``p_k = n_k / sum n``, and ``tau`` is the mean of the last numbers of ``items``, weighted
    by ``p_k``.

    Args:
        received: w_t, trainable parameters by name.
        items: per client, at least one: its trained weights w_k, its examples n_k, its `normalizer`
            a_k, and what ``tau`` averages: a_k, or the number of steps with a proximal term. Read
            once.
    """
    examples = steps = 0.0

    def directions() -> Iterator[tuple[Weights, float]]:
        nonlocal examples, steps
        for trained, n, a, tau in items:
            examples += n
            steps += n * tau
            yield difference(trained, received), n / a

    total = weighted_sum(directions())

    def formula(w: Tensor, direction: Tensor) -> Tensor:
        return w + steps / examples * (direction / examples)

    return combined(formula, {name: received[name] for name in total}, total)


@dataclass(frozen=True, eq=False)
class FedNova:
    """Aggregate updates divided by the clients' effective numbers of steps; replaces ``mean``."""

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = {
        **PLAIN_MEAN,
        ADAPTIVE: "its normaliser is that of SGD with momentum",
    }

    mu: Annotated[
        float,
        Field(
            ge=0, description="of a proximal term in the loss; that of the plugin fedprox counts"
        ),
    ] = 0.0

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        work = ctx.training
        if work.lr is None or work.momentum is None:
            raise ConfigError(
                "fednova needs the trainer's learning rate and momentum, and the trainer of this "
                "run states none; use sgd"
            )
        mu = float(ctx.scratch.get(STRENGTH, self.mu))
        if self.mu not in (0, mu):
            raise ConfigError(f"fednova.mu is {self.mu:g}, and fedprox.mu is {mu:g}; set only one")
        a = normalizer(work.steps, work.momentum, work.lr * mu, in_loss=True)
        ctx.upload(KEY, torch.tensor([a, work.steps if mu else a], dtype=torch.float64))
        return trained

    @hookimpl
    def aggregate(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Weights:
        buffers: list[tuple[Weights, float]] = []  # statistics: few numbers for each client

        def items() -> Iterator[tuple[Weights, float, float, float]]:
            for result in results:
                weights = result.uploads.weights()
                own = parameters(ctx.model, weights)
                buffers.append(
                    ({n: w for n, w in weights.items() if n not in own}, result.examples)
                )
                yield own, result.examples, *result.uploads.tensor(KEY).tolist()

        moved = normalized_mean(parameters(ctx.model, state.weights), items())
        return {**moved, **(weighted_mean(buffers) if buffers[0][0] else {})}
