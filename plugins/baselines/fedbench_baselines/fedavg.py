"""FedAvg (McMahan et al., AISTATS 2017, Algorithm 1): the mean of the clients' weights."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fedbench import ClientContext, ClientResult, ServerContext, ServerState, Weights, hookimpl

from .vectors import accumulate

NO_EXCHANGE = "no exchange"
"""The role of plugins in whose runs no weights travel."""

EXCHANGED: Mapping[str, str] = {NO_EXCHANGE: "it needs the clients' weights, and none travel"}
"""What plugins that need the clients' weights state as ``conflicts``."""

SHARES = "mean.shares"
"""What the server's scratch has after the mean: how much each client counted, in their order."""


def weighted_mean(items: Iterable[tuple[Weights, float]]) -> Weights:
    """Return ``sum_k n_k w_k / sum_k n_k``, summed in float64; integer buffers are rounded."""
    sums, total = dict[str, Tensor](), 0.0
    for weights, n in items:
        total += n
        accumulate(sums, weights, n)
    for k, w in weights.items():
        mean = sums[k].div_(total)
        sums[k] = (mean if w.is_floating_point() else mean.round()).to(w.dtype)
    return sums


@dataclass(frozen=True, eq=False)
class Exchange:
    """Send the global weights, collect the clients' weights."""

    conflicts: ClassVar[Mapping[str, str]] = EXCHANGED

    @hookimpl
    def broadcast(self, state: ServerState) -> dict[str, Weights]:
        return {"weights": state.weights}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.upload("weights", ctx.model.state_dict())
        return trained


@dataclass(frozen=True, eq=False)
class Mean:
    """Average the clients' weights, each by its number of examples or all alike (uniform)."""

    weights: Annotated[
        Literal["examples", "uniform"],
        Field(description="each client counts by its examples, or all clients count alike"),
    ] = "examples"

    @hookimpl
    def aggregate(self, ctx: ServerContext, results: Iterator[ClientResult]) -> Weights:
        by = self.weights == "examples"
        shares: list[float] = []

        def items() -> Iterator[tuple[Weights, float]]:
            for result in results:
                shares.append(result.examples if by else 1)
                yield result.uploads.weights(), shares[-1]

        mean = weighted_mean(items())
        ctx.scratch[SHARES] = shares
        return mean
