"""Report how far a client's weights move in its turn."""

from collections.abc import Generator
from dataclasses import dataclass

from torch.nn.utils import parameters_to_vector

from fedbench import ClientContext, hookimpl


@dataclass(frozen=True, eq=False)
class Distance:
    """Report the Euclidean distance between a client's weights before and after training."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        before = parameters_to_vector(ctx.model.parameters()).detach().clone()
        trained = yield
        after = parameters_to_vector(ctx.model.parameters()).detach()
        ctx.metric("distance", (after - before).norm())
        return trained
