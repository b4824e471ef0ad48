"""What q-FedAvg, AFL and TERM share: clients send their loss, and the server weighs by it.

A client's loss is the mean cross-entropy of the received model's classifier over all its training
examples, in evaluation mode and without augmentation or regularisers, whatever the method's own
loss terms are.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import nn
from torch.nn import functional as F

from fedbench import ClientContext, ClientResult, Weights, hookimpl

from .fedavg import weighted_mean
from .robust import ROLE
from .server_steps import parameters


class Sent(NamedTuple):
    """One client's id, number of examples, trained parameters and loss."""

    client: int
    examples: int
    parameters: Weights
    loss: float


class Cohort:
    """A round's results, iterated once; afterwards it has the losses and the mean of the buffers.

    Args:
        results: the results.
        model: tells parameters from buffers.
        key: of the uploaded losses.
    """

    def __init__(self, results: Iterable[ClientResult], model: nn.Module, key: str) -> None:
        self._results, self._key = results, key
        self._model = model
        self._buffers: list[tuple[Weights, int]] = []
        self.losses: dict[int, float] = {}
        """Client id -> its loss, for the clients so far."""

    def __iter__(self) -> Iterator[Sent]:
        for result in self._results:
            weights = result.uploads.weights()
            loss = self.losses[result.client] = float(result.uploads.tensor(self._key))
            own = parameters(self._model, weights)
            buffers = {name: w for name, w in weights.items() if name not in own}
            self._buffers.append((buffers, result.examples))
            yield Sent(result.client, result.examples, own, loss)

    def buffers(self) -> Weights:
        """Return the mean of the buffers by number of examples, as in FedAvg."""
        return weighted_mean(self._buffers)

    def metrics(self, name: str) -> Mapping[str, float]:
        """Return the highest loss of the round's clients, as a metric of the plugin ``name``."""
        return {f"{name}.worst_loss": max(self.losses.values())}


@dataclass(frozen=True, eq=False)
class SendsLoss:
    """Base class: every client sends its loss at the received weights under ``key``."""

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    key: ClassVar[str]

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        self.send_loss(ctx)
        return (yield)

    def send_loss(self, ctx: ClientContext) -> None:
        """Upload the loss of ``ctx.model``, which has the received weights."""
        output, labels = ctx.embed()
        ctx.upload(self.key, F.cross_entropy(output.logits, labels))
