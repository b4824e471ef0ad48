"""Score every client with its own model, as of the end of its last turn."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

from fedbench import ClientContext, hookimpl

KEY = "own.weights"


@dataclass(frozen=True, eq=False)
class Own:
    """Keep each client's trained model in its state and score it instead of the global one."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.state[KEY] = ctx.model.state_dict()
        return trained

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        if KEY in ctx.state:  # a client that has not had a turn uses the global model
            own = ctx.state[KEY]
            assert isinstance(own, Mapping)
            ctx.model.load_state_dict(own)
