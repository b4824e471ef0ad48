"""FedAdagrad, FedAdam and FedYogi: an adaptive optimiser on the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan: Adaptive Federated Optimization,
ICLR 2021.

The rule here is the paper's algorithm 2 as it is remembered; its text was not re-read. It has no
bias correction. The authors' experiments used Keras optimisers, which is a different rule: with
Adam's bias correction and accumulators that start at 0. Only trainable parameters belong here: such
steps would make running variances negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedbench import Search, ServerContext, ServerState, ServerUpdate, Value, Weights, hookimpl

from .server_steps import ONE_STEP, ROLE, parameters, zeros
from .vectors import combined

M, V = "fedopt.m", "fedopt.v"


def adaptive_step(
    weights: Weights,
    mean: Weights,
    m: Weights,
    v: Weights,
    rule: Literal["adagrad", "adam", "yogi"],
    lr: float,
    beta1: float,
    beta2: float,
    tau: float,
) -> tuple[Weights, Weights, Weights]:
    """Return the new weights, first moment and second moment.

    With ``D = mean - w_t`` and element by element: ``m <- beta1 m + (1 - beta1) D``; ``v`` becomes
    ``v + D^2`` (adagrad), ``beta2 v + (1 - beta2) D^2`` (adam) or
    ``v - (1 - beta2) D^2 sign(v - D^2)`` (yogi); the weights are
    ``w_t + lr * m / (sqrt(v) + tau)`` with the new ``m`` and ``v``.

    Args:
        weights: w_t, trainable parameters by name, as all others.
        mean: the aggregate of the clients' weights.
        m: first moment, zero at the start.
        v: second moment, not negative; ``tau ** 2`` at the start.
        rule: how ``v`` changes.
        lr: the server's learning rate, > 0.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1); adagrad ignores it.
        tau: adaptivity, > 0.
    """

    def second(v: Tensor, w: Tensor, mean: Tensor) -> Tensor:
        square = (mean - w).square()
        if rule == "adagrad":
            return v + square
        if rule == "adam":
            return beta2 * v + (1 - beta2) * square
        return v - (1 - beta2) * square * torch.sign(v - square)

    new_m = combined(lambda m, w, mean: beta1 * m + (1 - beta1) * (mean - w), m, weights, mean)
    new_v = combined(second, v, weights, mean)
    moved = combined(lambda w, m, v: w + lr * m / (v.sqrt() + tau), weights, new_m, new_v)
    return moved, new_m, new_v


@dataclass(frozen=True, eq=False)
class _Adaptive:
    """A server step with first and second moments; see `adaptive_step`."""

    outermost: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_STEP
    rule: ClassVar[Literal["adagrad", "adam", "yogi"]]

    lr: Annotated[
        float,
        Field(gt=0, description="the server's learning rate, to be tuned per data set"),
        Search(low=10**-2.5, high=10**0.5, scale="log"),
    ] = 0.1
    beta1: Annotated[float, Field(ge=0, lt=1, description="decay of the first moment")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="decay of the second moment")] = 0.99
    tau: Annotated[
        float,
        Field(gt=0, description="adaptivity: added to the root"),
        Search(low=1e-5, high=1e-1, scale="log"),
    ] = 1e-3

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        zero = zeros(ctx.model, weights)
        return {M: zero, V: {name: z + self.tau**2 for name, z in zero.items()}}

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, before: Weights
    ) -> ServerUpdate:
        old, mean = parameters(ctx.model, before), parameters(ctx.model, state.weights)
        moments = state.entries.weights(M), state.entries.weights(V)
        decay = self.beta1, self.beta2, self.tau
        weights, m, v = adaptive_step(old, mean, *moments, self.rule, self.lr, *decay)
        return ServerUpdate(entries={M: m, V: v}, weights=weights)


@dataclass(frozen=True, eq=False)
class FedAdam(_Adaptive):
    """Move the global weights by Adam's rule, without bias correction."""

    rule = "adam"


@dataclass(frozen=True, eq=False)
class FedYogi(_Adaptive):
    """Move the global weights by Yogi's rule, whose second moment grows in small steps."""

    rule = "yogi"


@dataclass(frozen=True, eq=False)
class FedAdagrad(_Adaptive):
    """Move the global weights by Adagrad's rule; ``beta2`` has no effect."""

    rule = "adagrad"

    beta1: Annotated[float, Field(ge=0, lt=1, description="decay of the first moment")] = 0.0
