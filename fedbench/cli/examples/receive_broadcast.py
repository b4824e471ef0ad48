"""Start every client from the mean of the received weights and its own last ones."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

from fedbench import ClientContext, Payload, Value, hookimpl

KEY = "blend.weights"


@dataclass(frozen=True, eq=False)
class Blend:
    """Blend what a client receives with the weights at the end of its last turn."""

    @hookimpl
    def receive_broadcast(self, ctx: ClientContext, payload: Payload) -> Mapping[str, Value]:
        own = ctx.state.get(KEY)
        if not isinstance(own, Mapping):
            return payload
        received = payload.weights()
        return {**payload, "weights": {k: (w + own[k].to(w)) / 2 for k, w in received.items()}}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.state[KEY] = ctx.model.state_dict()
        return trained
