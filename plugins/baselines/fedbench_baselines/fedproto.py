"""FedProto: clients share class prototypes and pull their features towards the global ones.

Tan, Long, Liu, Zhou, Lu, Jiang, Zhang: FedProto: Federated Prototype Learning across Heterogeneous
Clients, AAAI 2022, equations 3 to 7.

It has two forms, each with a recipe. ``fedproto`` averages the weights too (the plugin ``fedavg``)
and takes the plain mean of the clients' prototypes; this form is used in comparisons under domain
shift. ``fedproto-aaai`` is the paper's form: no weights travel, models are personal (the plugin
``personal``), and prototypes are averaged by example count (the released code takes the plain mean,
``average: plain``).

Both forms report two inference rules. The run's accuracy is that of ``classifier`` unless
``--set accuracy.inference=nearest_prototype`` is given. ``nearest_prototype`` considers all classes
that have a prototype (in the released code, only the client's own classes).

Local prototypes are those of `.prototypes`. As in the released code, only the current round's
clients count: a class that none of them holds has no prototype in the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedbench import (
    Batch,
    ClientContext,
    Output,
    PerClass,
    Report,
    Search,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)

from .fedavg import NO_EXCHANGE
from .personal_parts import ROLE, WHY
from .prototypes import gather, local_prototypes

KEY = "fedproto.prototypes"
STATE = "personal.weights"


def prototype_loss(features: Tensor, labels: Tensor, prototypes: PerClass) -> Tensor:
    """Return the mean squared error between features and their classes' prototypes, a scalar.

    The mean is over all B x d elements. As in the released code, a sample whose class has no
    prototype adds nothing to the sum but still counts in B.

    Args:
        features: (B, d).
        labels: (B,) int64.
        prototypes: one row (d,) per known class.
    """
    same = labels[:, None] == prototypes.labels[None, :]
    targets = prototypes.values[same.int().argmax(dim=1)]
    # Multiplied by a mask, because selecting rows would make a GPU wait for the host.
    return ((features - targets) * same.any(dim=1, keepdim=True)).square().sum() / features.numel()


def nearest(prototypes: PerClass, num_classes: int) -> Callable[[Output], Tensor]:
    """Return a rule that scores each class by the negative squared distance to its prototype.

    Classes without a prototype score below all others, but their scores are finite, so that metrics
    computed from the scores (the loss) stay finite.

    Args:
        prototypes: one row (d,) per known class.
        num_classes: C.

    Returns:
        a function from an `Output` to class scores (B, C).
    """
    exact = "donot_use_mm_for_euclid_dist"

    def scores(output: Output) -> Tensor:
        z = output.features
        distance = torch.cdist(z, prototypes.values.to(z), compute_mode=exact).square()
        filled = (-2 * distance.amax(dim=1, keepdim=True) - 1).repeat(1, num_classes)
        filled[:, prototypes.labels.to(z.device)] = -distance
        return filled

    return scores


@dataclass(frozen=True, eq=False)
class FedProto:
    """Add ``mu * MSE(z, P_y)``; upload the last epoch's class means; average them per class."""

    anchors: ClassVar[tuple[str, ...]] = (KEY,)

    mu: Annotated[
        float,
        Field(ge=0, description="weight of the term; 1 in the paper"),
        Search(low=0.1, high=10, scale="log"),
    ] = 1.0
    average: Annotated[
        Literal["plain", "by_count"], Field(description="how the clients' prototypes are averaged")
    ] = "plain"

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {KEY: state.entries[KEY]} if KEY in state.entries else {}

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        gather(ctx, batch, output, KEY)
        if KEY not in ctx.payload:
            return {}
        prototypes = ctx.payload.per_class(KEY)
        return {"fedproto": self.mu * prototype_loss(output.features, batch.labels, prototypes)}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.upload(KEY, local_prototypes(ctx, KEY))
        return trained

    @hookimpl
    def server_update(self, reports: Sequence[Report]) -> ServerUpdate:
        uploads = PerClass.concat(r.uploads.per_class(KEY) for r in reports)
        return ServerUpdate(entries={KEY: uploads.average(by_count=self.average == "by_count")})

    @hookimpl
    def inference(
        self, ctx: ServerContext, state: ServerState
    ) -> Mapping[str, Callable[[Output], Tensor]]:
        if KEY not in state.entries:
            return {}
        return {"nearest_prototype": nearest(state.entries.per_class(KEY), ctx.num_classes)}


@dataclass(frozen=True, eq=False)
class Personal:
    """Give every client a model of its own, with which it is scored; no weights travel.

    A client starts from the run's initial weights or, after its first turn, from the weights at the
    end of its last turn. The initial weights also remain the run's global weights.
    """

    roles: ClassVar[tuple[str, ...]] = (ROLE, NO_EXCHANGE)
    conflicts: ClassVar[Mapping[str, str]] = {ROLE: WHY}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        self.personalize(ctx)
        trained = yield
        ctx.state[STATE] = ctx.model.state_dict()
        return trained

    @hookimpl
    def aggregate(self, state: ServerState) -> Weights:
        return state.weights

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        if STATE in ctx.state:
            ctx.model.load_state_dict(ctx.state[STATE])  # type: ignore[arg-type]
