"""q-FedAvg: clients with a high loss count more, so that accuracy is spread more evenly.

Li, Sanjabi, Beirami, Smith: Fair Resource Allocation in Federated Learning, ICLR 2020. The formula
agrees with the released code; the paper was not re-read.

The step contains no example weights: the published objective has them in the sampling of clients.
As in the released code, 1e-10 is added to every loss, so that a loss of 0 has powers below 0.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fedbench import (
    ClientContext,
    ClientResult,
    Search,
    ServerContext,
    ServerUpdate,
    Weights,
    hookimpl,
)

from .fairness import Cohort, SendsLoss
from .personal_parts import learning_rate
from .server_steps import parameters
from .trainers import ADAPTIVE
from .vectors import combined, difference, squared_norm

LR = "qfedavg.lr"
"""Name of the metric by which the server learns the trainer's learning rate."""

TINY = 1e-10
"""What is added to every loss."""


def fair_step(
    received: Weights, items: Iterable[tuple[Weights, float]], q: float, lipschitz: float
) -> Weights:
    """Return ``w_t - sum_k F_k^q D_k / sum_k (q F_k^(q-1) ||D_k||^2 + L F_k^q)``.

    Here ``D_k = L (w_t - w_k)``. Sums are in float64, over one client at a time. With ``q`` 0 the
    result is the plain mean of the w_k.

    Args:
        received: w_t, trainable parameters by name.
        items: for every client of the round, of which there must be at least one, its trained
            weights w_k under the same names and its loss F_k >= 0 at ``w_t``, over all its data.
        q: how much fairness counts, at least 0.
        lipschitz: L > 0, an estimate of the loss's Lipschitz constant: 1 / the learning rate.
    """
    step, total = dict[str, Tensor](), 0.0
    for trained, loss in items:
        loss += TINY
        moved = difference(received, trained)
        square = lipschitz**2 * squared_norm(moved)
        total += q * loss ** (q - 1) * square + lipschitz * loss**q
        for k, d in moved.items():
            part = lipschitz * loss**q * d
            step[k] = step[k] + part if k in step else part
    return combined(lambda w, s: w - s / total, received, step)


@dataclass(frozen=True, eq=False)
class QFedAvg(SendsLoss):
    """Take q-FedAvg's step instead of the mean; buffers are averaged by number of examples.

    The Lipschitz constant is 1 / the trainer's learning rate of the round, as published for plain
    SGD; with momentum that is a convention.
    """

    q: Annotated[
        float,
        Field(ge=0, description="how much fairness counts; the authors use 0.001 to 15, by data"),
        Search(low=0.001, high=15, scale="log"),
    ] = 1.0
    lipschitz: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Field(description="estimate of the loss's Lipschitz constant; default 1 / learning rate"),
    ] = None

    conflicts: ClassVar[Mapping[str, str]] = {
        ADAPTIVE: "its Lipschitz constant is 1 / the learning rate of SGD"
    }
    key: ClassVar[str] = "qfedavg.loss"

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        self.send_loss(ctx)
        trained = yield
        if self.lipschitz is None:
            ctx.metric(LR, learning_rate(ctx, "qfedavg"))
        return trained

    @hookimpl
    def aggregate(self, ctx: ServerContext, results: Iterator[ClientResult]) -> ServerUpdate:
        first = next(results)
        lipschitz = self.lipschitz or 1 / first.metrics[LR]
        received = parameters(ctx.model, first.sent.weights())
        cohort = Cohort(chain([first], results), ctx.model, self.key)
        pairs = ((sent.parameters, sent.loss) for sent in cohort)
        weights = fair_step(received, pairs, self.q, lipschitz)
        return ServerUpdate(
            weights={**weights, **cohort.buffers()}, metrics=cohort.metrics("qfedavg")
        )
