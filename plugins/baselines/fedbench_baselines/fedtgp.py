"""FedTGP: the server trains global prototypes that keep a margin between classes.

Zhang, Liu, Hua, Cao: FedTGP: Trainable Global Prototypes with Adaptive-Margin-Enhanced Contrastive
Learning for Data and Model Heterogeneity in Federated Learning, AAAI 2024.

The server keeps a small network from a class to its prototype (`.tgp`) and trains it by SGD to
classify the clients' prototypes by their distance to the global ones. From the end of round 1, all
C prototypes are sent, also those of classes that nobody has uploaded yet. A client's term is
`.fedproto.prototype_loss`; its own prototypes come from one pass after training, in evaluation mode
and without augmentation.

Recipes: ``fedtgp`` averages the weights too; ``fedtgp-aaai`` is the paper's form with personal
models, of which only prototypes travel. Both report the inference rule ``nearest_prototype``, which
is the paper's; ``--set accuracy.inference=nearest_prototype`` makes it the run's accuracy.

From the released code: the margin ``max_min``. The paper takes the maximum over all pairs, as it is
remembered (its text was not re-read): ``max``. In the released code a distance of 0 makes a NaN,
and each client sets the global seed to 0; here neither happens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
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
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)

from . import tgp
from .fedproto import nearest, prototype_loss

KEY, NETWORK = "fedtgp.prototypes", "fedtgp.network"
EXACT = "donot_use_mm_for_euclid_dist"


def adaptive_margin(
    prototypes: PerClass, threshold: float, form: Literal["max_min", "max"]
) -> float:
    """Return the margin: the largest gap between class means, but at most ``threshold``.

    Args:
        prototypes: the clients' rows (d,), any number per class; a class's mean is the plain one.
        threshold: upper bound, and the margin when fewer than two classes have rows.
        form: a gap is a class's distance to its nearest other class (``max_min``), or to its
            farthest (``max``).
    """
    means = prototypes.average().values
    if len(means) < 2:
        return threshold
    distances = torch.cdist(means, means, compute_mode=EXACT)
    if form == "max_min":
        distances = distances.fill_diagonal_(torch.inf).amin(dim=1)
    return min(float(distances.max()), threshold)


def center_loss(prototypes: Tensor, labels: Tensor, centers: Tensor, margin: float) -> Tensor:
    """Return the mean cross-entropy of ``-(||P_i - T_c|| + margin * [c = y_i])``, a scalar.

    Args:
        prototypes: P, (n, d), of the clients.
        labels: y, (n,) int64.
        centers: T, (C, d), the global prototypes.
        margin: not negative.
    """
    # Its gradient is 0, not NaN, where a prototype and a centre are equal.
    distances = torch.cdist(prototypes, centers, compute_mode=EXACT)
    own = F.one_hot(labels, len(centers))
    return F.cross_entropy(-(distances + margin * own), labels)


@dataclass(frozen=True, eq=False)
class FedTGP:
    """Add ``weight * MSE(z, T_y)``; upload class means; train the global prototypes on them."""

    anchors: ClassVar[tuple[str, ...]] = (KEY,)
    conflicts: ClassVar[Mapping[str, str]] = {
        "fedproto": "each has prototypes of its own for the rule nearest_prototype"
    }

    weight: Annotated[
        float,
        Field(ge=0, description="weight of the term, lambda; 1 in the released code"),
        Search(low=0.1, high=10, scale="log"),
    ] = 1.0
    threshold: Annotated[
        float, Field(ge=0, description="upper bound of the margin; 100 in the released code")
    ] = 100.0
    form: Annotated[
        Literal["max_min", "max"],
        Field(description="the margin: as in the released code, or as in the paper"),
    ] = "max_min"
    server_epochs: Annotated[
        int, Field(ge=1, description="passes over the uploads per round; as in the released code")
    ] = 1000
    server_lr: Annotated[
        float, Field(gt=0, description="learning rate; in the released code the clients'")
    ] = 0.01
    server_batch_size: Annotated[
        int, Field(ge=1, description="uploaded rows per step; in the released code the clients'")
    ] = 64

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        num_classes, d = weights["classifier.weight"].shape
        return {NETWORK: tgp.initial_network(num_classes, d, ctx.rng("fedtgp"))}

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {KEY: state.entries[KEY]} if KEY in state.entries else {}

    @hookimpl
    def local_loss(self, ctx: ClientContext, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if KEY not in ctx.payload:
            return {}
        prototypes = ctx.payload.per_class(KEY)
        return {"fedtgp": self.weight * prototype_loss(output.features, batch.labels, prototypes)}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        output, labels = ctx.embed()
        ctx.upload(KEY, PerClass.means(output.features, labels))
        return trained

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, reports: Sequence[Report]
    ) -> ServerUpdate:
        uploads = PerClass.concat(r.uploads.per_class(KEY) for r in reports)
        margin = adaptive_margin(uploads, self.threshold, self.form)
        network = tgp.train_network(
            state.entries.weights(NETWORK),
            uploads,
            self.server_epochs,
            self.server_batch_size,
            self.server_lr,
            margin,
            ctx.rng("fedtgp"),
        )
        rows = torch.arange(ctx.num_classes)
        counts = torch.zeros_like(rows).index_add(0, uploads.labels, uploads.counts)
        prototypes = PerClass(rows, tgp.centers(network), counts)
        return ServerUpdate({NETWORK: network, KEY: prototypes}, metrics={"fedtgp.margin": margin})

    @hookimpl
    def inference(
        self, ctx: ServerContext, state: ServerState
    ) -> Mapping[str, Callable[[Output], Tensor]]:
        if KEY not in state.entries:
            return {}
        return {"nearest_prototype": nearest(state.entries.per_class(KEY), ctx.num_classes)}
