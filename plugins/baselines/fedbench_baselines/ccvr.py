"""CCVR: after training, calibrate the classifier on virtual features drawn per class.

Luo, Chen, Hu, Zhang, Liang, Feng: No Fear of Heterogeneity: Classifier Calibration for Federated
Learning with Non-IID Data, NeurIPS 2021.

Clients send count, mean and covariance of each class's features under the final extractor; the
server pools them to the statistics of all features together and draws from one Gaussian per class.
The pooled covariance is exact only if the clients' are unbiased (divided by n - 1): some public
code pools population covariances by this formula. No code by the authors was found, and the paper's
text was not re-read.

A run's last round is the calibration: the final extractor is the one that its clients receive.
They also train in this round, as other plugins may need, but the result is not used: the run ends
with the weights from before the round and the new classifier. A run of T rounds thus trains for
T - 1. In a sampled cohort, only its clients send statistics; in the paper, all clients do.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import (
    ClientContext,
    PerClass,
    Report,
    Search,
    ServerContext,
    ServerUpdate,
    Weights,
    hookimpl,
)

from .fedavg import NO_EXCHANGE
from .fedgh import train_head
from .schedules import OVERLAPPING
from .server_steps import AHEAD

MEANS, COVARIANCES = "ccvr.means", "ccvr.covariances"


def class_statistics(features: Tensor, labels: Tensor) -> tuple[PerClass, PerClass]:
    """Return each class's mean (d,) and the upper triangle (d(d+1)/2,) of its covariance.

    The covariance is unbiased, and 0 for a class with one example.

    Args:
        features: (n, d).
        labels: (n,) int64.
    """
    means = PerClass.means(features, labels)
    i, j = torch.triu_indices(features.shape[1], features.shape[1], device=features.device)
    rows = []
    for label, mean in zip(means.labels, means.values, strict=True):
        centred = features[labels == label] - mean
        rows.append((centred.T @ centred)[i, j] / max(len(centred) - 1, 1))
    return means, PerClass(means.labels, torch.stack(rows), means.counts)


def pooled_statistics(
    counts: Tensor, means: Tensor, covariances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each class's count (C,), mean (C, d) and unbiased covariance (C, d, d) over clients.

    They are those of all features together, up to rounding. A class with one example in all has
    covariance 0; a class that nobody holds has count, mean and covariance 0.

    Args:
        counts: n_kc, (K, C), examples per client and class.
        means: (K, C, d), finite also where the count is 0.
        covariances: (K, C, d, d), unbiased; ignored where the count is below 2, but finite.
    """
    n = counts.double()
    total = n.sum(dim=0)
    mean = torch.einsum("kc,kci->ci", n, means.double()) / total.clamp(min=1)[:, None]
    # From centred differences: the difference of two large sums of squares would cancel.
    centred = n.sqrt()[:, :, None] * (means.double() - mean)
    between = torch.einsum("kci,kcj->cij", centred, centred)
    within = torch.einsum("kc,kcij->cij", (n - 1).clamp(min=0), covariances.double())
    covariance = (within + between) / (total - 1).clamp(min=1)[:, None, None]
    return total.to(counts.dtype), mean.to(means.dtype), covariance.to(covariances.dtype)


def virtual_features(
    counts: Tensor, means: Tensor, covariances: Tensor, per_class: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return virtual features (n, d) and their labels (n,) int64, class after class.

    Each class that somebody holds gets ``per_class`` features from ``N(mean, covariance)``. The
    covariance may lack full rank: features then differ from the mean only within its range.

    Args:
        counts: (C,), examples per class; classes with 0 are left out.
        means: (C, d).
        covariances: (C, d, d), symmetric; eigenvalues below rounding error, or negative because of
            it, count as 0.
        per_class: M, at least 1.
        generator: source of the draws, on the CPU, like all tensors; a class's draws do not depend
            on which other classes are held.
    """
    classes, d = means.shape
    noise = torch.randn(classes, per_class, d, generator=generator, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariances.double())
    floor = values.amax(dim=1, keepdim=True) * d * torch.finfo(covariances.dtype).eps
    scales = torch.where(values > floor, values, 0.0).sqrt()
    # The symmetric root, because the eigenvectors' signs differ between machines.
    root = (vectors * scales[:, None, :]) @ vectors.mT
    features = (means.double()[:, None, :] + noise @ root).to(means.dtype)
    held = (counts > 0).nonzero().flatten()
    return features[held].flatten(0, 1), held.repeat_interleave(per_class)


def pooled_uploads(
    reports: Sequence[Report], num_classes: int, d: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return count (C,), mean (C, d) and covariance (C, d, d) over all clients, in float64."""
    i, j = torch.triu_indices(d, d)
    shapes = (num_classes,), (num_classes, d), (num_classes, d, d)
    counts, means, covariances = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)
    # Client by client, so that memory does not grow with their number; pooling is exact either way.
    for report in reports:
        mean, upper = (report.uploads.per_class(key) for key in (MEANS, COVARIANCES))
        n, m, s = torch.zeros_like(counts), torch.zeros_like(means), torch.zeros_like(covariances)
        n[mean.labels], m[mean.labels] = mean.counts.double(), mean.values.double()
        s[mean.labels[:, None], i, j] = s[mean.labels[:, None], j, i] = upper.values.double()
        counts, means, covariances = pooled_statistics(
            torch.stack([counts, n]), torch.stack([means, m]), torch.stack([covariances, s])
        )
    return counts, means, covariances


@dataclass(frozen=True, eq=False)
class Ccvr:
    """In the last round, retrain the classifier on virtual features instead of the model.

    The rows of classes that no client of the round holds are kept.
    """

    conflicts: ClassVar[Mapping[str, str]] = {
        NO_EXCHANGE: "there is no global extractor",
        AHEAD: "the extractor that clients receive is not the final one",
        OVERLAPPING: "its statistics travel in the last round, and late clients started before it",
    }
    last_round: ClassVar[str] = "it retrains the classifier there"

    per_class: Annotated[
        int,
        Field(ge=1, description="virtual features per class; 200 in public code"),
        Search(choices=(100, 200, 500, 1000)),
    ] = 200
    epochs: Annotated[int, Field(ge=1, description="passes over the virtual features")] = 1
    batch_size: Annotated[int, Field(ge=1, description="virtual features per step")] = 64
    lr: Annotated[
        float,
        Field(gt=0, description="learning rate of the retraining, plain SGD"),
        Search(low=1e-3, high=1e-1, scale="log"),
    ] = 0.01

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        if ctx.round == ctx.rounds:
            output, labels = ctx.embed()
            means, covariances = class_statistics(output.features, labels)
            ctx.upload(MEANS, means)
            ctx.upload(COVARIANCES, covariances)
        return (yield)

    @hookimpl
    def server_update(
        self, ctx: ServerContext, before: Weights, reports: Sequence[Report]
    ) -> ServerUpdate:
        if ctx.round < ctx.rounds:
            return ServerUpdate()
        weight, bias = before["classifier.weight"], before["classifier.bias"]
        statistics = pooled_uploads(reports, *weight.shape)
        rng = ctx.rng("ccvr")
        features, labels = virtual_features(*statistics, self.per_class, rng)
        held = labels.unique()
        rows = PerClass(torch.searchsorted(held, labels), features, torch.ones_like(labels))
        options = (self.epochs, self.batch_size, self.lr, rng)
        w, b = train_head(weight[held], bias[held], rows, *options)
        new = {
            "classifier.weight": weight.index_copy(0, held, w),
            "classifier.bias": bias.index_copy(0, held, b),
        }
        return ServerUpdate(weights={**before, **new})
