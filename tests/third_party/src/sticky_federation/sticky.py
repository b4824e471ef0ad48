"""Sticky: each client is pulled towards a running mean of the weights at the end of its turns.

Its term is FedProx's proximal term (Li et al., MLSys 2020, equation 2) around that mean instead of
the received weights. The mean is kept in the client's state, so it never travels.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from fedbench import hookimpl

HOME = "sticky.home"


@dataclass(frozen=True, eq=False)
class Sticky:
    """Add ``mu/2 * ||w - home||^2``; after a turn ``home`` moves towards ``w``."""

    mu: Annotated[float, Field(ge=0, description="weight of the term")] = 0.01
    memory: Annotated[float, Field(ge=0, lt=1, description="share of home that is kept")] = 0.5

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        home = {k: w.to(ctx.device) for k, w in ctx.state.get(HOME, {}).items()}
        ctx.scratch[HOME] = home
        trained = yield
        with torch.no_grad():
            ctx.state[HOME] = {
                name: w.lerp(home[name], self.memory) if home else w.clone()
                for name, w in ctx.model.named_parameters()
            }
        return trained

    @hookimpl
    def local_loss(self, ctx):
        home = ctx.scratch[HOME]
        if not home or self.mu == 0:  # the client's first turn
            return {}
        squares = [(w - home[name]).square().sum() for name, w in ctx.model.named_parameters()]
        return {"sticky": self.mu / 2 * torch.stack(squares).sum()}
