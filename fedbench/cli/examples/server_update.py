"""Average the global classifier over rounds, and report how far it is from its average."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedbench import ServerState, ServerUpdate, Value, Weights, hookimpl

KEY = "moving_average"


@dataclass(frozen=True, eq=False)
class MovingAverage:
    """Keep an exponential moving average of the classifier's weights."""

    decay: Annotated[float, Field(ge=0, lt=1, description="weight of the old average")] = 0.9

    @hookimpl
    def init_server(self, weights: Weights) -> Mapping[str, Value]:
        return {KEY: weights["classifier.weight"]}

    @hookimpl
    def server_update(self, state: ServerState) -> ServerUpdate:
        new, old = state.weights["classifier.weight"], state.entries.tensor(KEY)
        average = self.decay * old + (1 - self.decay) * new
        return ServerUpdate(
            entries={KEY: average}, metrics={"from_average": float((new - average).norm())}
        )
