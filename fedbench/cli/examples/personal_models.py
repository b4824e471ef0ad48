"""Test every client's own model as of the end of its last training."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from fedbench import ClientContext, ServerState, Value, Weights, hookimpl

KEY = "own.weights"


@dataclass(frozen=True, eq=False)
class Own:
    """Keep each client's trained model in its state and test it instead of the global one."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.state[KEY] = ctx.model.state_dict()
        return trained

    @hookimpl
    def personal_models(
        self, state: ServerState, clients: Iterator[Mapping[str, Value]]
    ) -> Iterator[Weights]:
        found = False
        for kept in clients:  # one at a time: there may be many
            found = True
            weights = kept[KEY]
            assert isinstance(weights, Mapping)
            yield weights
        if not found:
            yield state.weights
