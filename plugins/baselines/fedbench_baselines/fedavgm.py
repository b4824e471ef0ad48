"""FedAvgM: the server applies momentum to the mean update of its clients.

Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification, 2019 (arXiv 1909.06335).

The paper's text was not re-read. Some public code multiplies the mean update by
``1 - momentum``, which makes steps ten times smaller at momentum 0.9; here it enters undamped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fedbench import Search, ServerContext, ServerState, ServerUpdate, Value, Weights, hookimpl

from .server_steps import ONE_STEP, ROLE, parameters, zeros
from .vectors import combined

KEY = "fedavgm.velocity"


def momentum_step(
    weights: Weights, mean: Weights, velocity: Weights, lr: float, momentum: float
) -> tuple[Weights, Weights]:
    """Return the new weights ``w_t + lr * v_new`` and ``v_new = momentum * v + (mean - w_t)``.

    With ``lr = 1`` and ``momentum = 0`` the new weights are ``mean``, bit for bit.

    Args:
        weights: w_t, trainable parameters by name, as all others.
        mean: the aggregate of the clients' weights.
        velocity: v, zero at the start.
        lr: the server's learning rate, > 0.
        momentum: in [0, 1).
    """

    def velocity_of(v: Tensor, w: Tensor, m: Tensor) -> Tensor:
        return momentum * v + (m - w)

    def moved(m: Tensor, w: Tensor, v: Tensor) -> Tensor:
        # The mean plus what momentum and learning rate add, so that it is exact where they do not.
        return m + (lr * velocity_of(v, w, m) - (m - w))

    return combined(moved, mean, weights, velocity), combined(velocity_of, velocity, weights, mean)


@dataclass(frozen=True, eq=False)
class FedAvgM:
    """Move the global weights by momentum over the rounds' mean updates."""

    outermost: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_STEP

    lr: Annotated[
        float,
        Field(gt=0, description="the server's learning rate"),
        Search(low=10**-2.5, high=10**0.5, scale="log"),
    ] = 1.0
    momentum: Annotated[
        float,
        Field(ge=0, lt=1, description="the server's momentum"),
        Search(choices=(0.7, 0.9, 0.97, 0.99)),
    ] = 0.9

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        return {KEY: zeros(ctx.model, weights)}

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, before: Weights
    ) -> ServerUpdate:
        old, mean = parameters(ctx.model, before), parameters(ctx.model, state.weights)
        velocity = state.entries.weights(KEY)
        weights, velocity = momentum_step(old, mean, velocity, self.lr, self.momentum)
        return ServerUpdate(entries={KEY: velocity}, weights=weights)
