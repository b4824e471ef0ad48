"""FedPCL: features are contrasted with the class prototypes of all clients.

Tan, Long, Ma, Liu, Zhou, Jiang: Federated Learning from Pre-Trained Models: A Contrastive Learning
Approach, NeurIPS 2022.

There, clients hold frozen pre-trained backbones and train a projection without cross-entropy, and
only prototypes travel. Here features are those of the model in training. As nothing is pre-trained,
the recipe keeps the cross-entropy (``--without cross_entropy`` removes it) and averages weights.
This is not the paper's setting.

The loss is the paper's as it is remembered (its text was not re-read): a sum over the global set of
prototypes, the plain mean, and the sets of all clients of the last round. The released code instead
contrasts each sample's prototype with the batch, which divides 0 by 0 when a class occurs once in a
batch. Local prototypes come from one pass after training, in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

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

KEY, SETS = "fedpcl.prototypes", "fedpcl.sets"


def prototype_contrast(
    features: Tensor, labels: Tensor, prototypes: PerClass, temperature: float
) -> Tensor:
    """Return the mean of ``-( s(z, p_y)/T - log sum_{c != y} exp(s(z, p_c)/T) )``, a scalar.

    ``s`` is the cosine similarity. The true class is not in the sum, so the loss may be negative. A
    sample adds nothing, but still counts in the mean, if its class has no prototype or if no other
    class has one.

    Args:
        features: z, (B, d).
        labels: y, (B,) int64.
        prototypes: one row (d,) per known class.
        temperature: T > 0.
    """
    same = labels[:, None] == prototypes.labels[None, :]
    unit = F.normalize(prototypes.values, dim=1)
    scores = F.normalize(features, dim=1) @ unit.T / temperature
    own = (scores * same).sum(dim=1)
    others = scores.masked_fill(same, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    contrasted = same.any(dim=1) & (~same).any(dim=1)
    return torch.where(contrasted, others - own, 0.0).mean()


def unit_sets(prototypes: PerClass, sets: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return unit rows (S, C, d), 0 where a set lacks a class, and which rows there are (S, C).

    Args:
        prototypes: n rows (d,), at most one per set and class.
        sets: (n,) int64, the set of each row, from 0.
        num_classes: C.
    """
    shape = int(sets.max()) + 1, num_classes
    units = prototypes.values.new_zeros(*shape, prototypes.values.shape[1])
    units[sets, prototypes.labels] = F.normalize(prototypes.values, dim=1)
    held = torch.zeros(shape, dtype=torch.bool, device=sets.device)
    held[sets, prototypes.labels] = True
    return units, held


def sets_contrast(
    features: Tensor, labels: Tensor, units: Tensor, held: Tensor, temperature: float
) -> Tensor:
    """Return the sum of `prototype_contrast` over several sets of prototypes, a scalar.

    Args:
        features: z, (B, d).
        labels: y, (B,) int64.
        units: (S, C, d), see `unit_sets`.
        held: (S, C) bool.
        temperature: T > 0.
    """
    same = F.one_hot(labels, held.shape[1]).bool()[:, None]  # (B, 1, C)
    others = held & ~same  # (B, S, C)
    scores = torch.einsum("bd,scd->bsc", F.normalize(features, dim=1), units) / temperature
    total = scores.masked_fill(~others, torch.finfo(scores.dtype).min).logsumexp(dim=2)
    losses = total - (scores * same).sum(dim=2)
    contrasted = (held & same).any(dim=2) & others.any(dim=2)
    return torch.where(contrasted, losses, 0.0).sum(dim=1).mean()


@dataclass(frozen=True, eq=False)
class FedPCL:
    """Add the contrast with the class prototypes of all clients; upload class means.

    All sets travel to each client, so the bytes down grow with the number of clients per round.
    """

    anchors: ClassVar[tuple[str, ...]] = (KEY,)

    weight: Annotated[
        float,
        Field(ge=0, description="weight of the term"),
        Search(low=0.1, high=10, scale="log"),
    ] = 1.0
    temperature: Annotated[
        float,
        Field(gt=0, description="temperature T; 0.07 in the released code"),
        Search(choices=(0.07, 0.2, 0.5)),
    ] = 0.07
    sets: Annotated[
        Literal["all", "global"],
        Field(description="contrast with the global set and each client's, or the global one only"),
    ] = "all"

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {key: state.entries[key] for key in (KEY, SETS) if key in state.entries}

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if KEY not in ctx.payload:
            # Zero with a gradient, so that round 1 runs without any other term too.
            return {"fedpcl": 0.0 * output.features.sum()}
        if SETS not in ctx.scratch:  # once per turn
            rows = ctx.payload.per_class(KEY), ctx.payload.tensor(SETS)
            ctx.scratch[SETS] = unit_sets(*rows, ctx.num_classes)
        units, held = ctx.scratch[SETS]
        loss = sets_contrast(output.features, batch.labels, units, held, self.temperature)
        return {"fedpcl": self.weight * loss}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        output, labels = ctx.embed()
        ctx.upload(KEY, PerClass.means(output.features, labels))
        return trained

    @hookimpl
    def server_update(self, reports: Sequence[Report]) -> ServerUpdate:
        uploads = [r.uploads.per_class(KEY) for r in reports]
        parts = [PerClass.concat(uploads).average(), *(uploads if self.sets == "all" else ())]
        sizes = torch.tensor([len(part) for part in parts])
        sets = torch.arange(len(parts)).repeat_interleave(sizes)
        return ServerUpdate(entries={KEY: PerClass.concat(parts), SETS: sets})
