"""FedProc: a prototype contrast leads the training at first, cross-entropy at the end.

Mu, Shen, Cheng, Geng, Fu, Zhang, Zhang: FedProc: Prototypical contrastive federated learning on
non-IID data, Future Generation Computer Systems 143, 2023.

The local loss is ``alpha * CE + (1 - alpha) * contrast``. From the released code: no temperature,
``alpha`` reaches 1 after 100 rounds, and prototypes are sums of normalised features over all
clients' data, divided by the total count. That code computes features with a projection head, which
is absent here, and trains with cross-entropy alone in round 1, as this one does until there are
prototypes. A class that no client of a round holds keeps its prototype. The paper's text was not
re-read.

Local prototypes come from one pass after training, in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedbench import (
    Batch,
    ClientContext,
    Output,
    PerClass,
    Report,
    Search,
    ServerState,
    ServerUpdate,
    Value,
    hookimpl,
)

from .classification import ALONE, ROLE

KEY = "fedproc.prototypes"


def prototype_contrast(
    features: Tensor, labels: Tensor, prototypes: PerClass, temperature: float = 1.0
) -> Tensor:
    """Return the mean of ``-log( exp(s(z, p_y)/T) / sum_c exp(s(z, p_c)/T) )``, a scalar.

    ``s`` is the cosine similarity, and the sum is over the classes that have a prototype. A sample
    whose class has none adds nothing but still counts in the mean.

    Args:
        features: z, (B, d).
        labels: y, (B,) int64.
        prototypes: one row (d,) per known class.
        temperature: T > 0.
    """
    same = labels[:, None] == prototypes.labels[None, :]
    unit = F.normalize(prototypes.values, dim=1)
    scores = F.normalize(features, dim=1) @ unit.T / temperature
    losses = scores.logsumexp(dim=1) - (scores * same).sum(dim=1)
    return torch.where(same.any(dim=1), losses, 0.0).mean()


def mixing(round: int, horizon: int) -> float:
    """Return ``alpha``, the weight of cross-entropy: ``min((round - 1) / horizon, 1)``.

    Args:
        round: counted from 1, where the result is 0.
        horizon: completed rounds after which only cross-entropy is left, at least 1.
    """
    return min((round - 1) / horizon, 1.0)


@dataclass(frozen=True, eq=False)
class FedProc:
    """Use a mixture of cross-entropy and prototype contrast as the loss; upload class means."""

    anchors: ClassVar[tuple[str, ...]] = (KEY,)
    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ALONE

    temperature: Annotated[
        float,
        Field(gt=0, description="temperature T of the contrast; 1 in the released code"),
        Search(choices=(0.1, 0.5, 1.0)),
    ] = 1.0
    horizon: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(
            description="completed rounds after which only cross-entropy is left; 100 in the "
            "released code, null for the run's rounds"
        ),
    ] = None

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {KEY: state.entries[KEY]} if KEY in state.entries else {}

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        loss = F.cross_entropy(output.logits, batch.labels)
        if KEY in ctx.payload:
            alpha = mixing(ctx.round, self.horizon or ctx.rounds)
            known = ctx.payload.per_class(KEY)
            contrast = prototype_contrast(output.features, batch.labels, known, self.temperature)
            loss = alpha * loss + (1 - alpha) * contrast
        return {"fedproc": loss}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        output, labels = ctx.embed()
        ctx.upload(KEY, PerClass.means(F.normalize(output.features, dim=1), labels))
        return trained

    @hookimpl
    def server_update(self, state: ServerState, reports: Sequence[Report]) -> ServerUpdate:
        uploads = PerClass.concat(r.uploads.per_class(KEY) for r in reports)
        parts = [uploads.average(by_count=True)]
        if KEY in state.entries:
            old = state.entries.per_class(KEY)
            kept = ~torch.isin(old.labels, uploads.labels)
            parts.append(PerClass(old.labels[kept], old.values[kept], old.counts[kept]))
        return ServerUpdate(entries={KEY: PerClass.concat(parts)})
