"""Give every client the same weight, however many examples it has."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from fedbench_baselines.fedavg import weighted_mean

from fedbench import ClientContext, ClientResult, ServerState, Value, Weights, hookimpl


@dataclass(frozen=True, eq=False)
class PlainMean:
    """Broadcast the weights, collect them and take their plain mean; replaces ``fedavg``."""

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {"weights": state.weights}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.upload("weights", ctx.model.state_dict())
        return trained

    @hookimpl
    def aggregate(self, results: Iterator[ClientResult]) -> Weights:
        return weighted_mean((result.uploads.weights(), 1) for result in results)  # one pass
