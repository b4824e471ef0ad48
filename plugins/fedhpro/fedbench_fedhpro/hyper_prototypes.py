"""FedHPro's hyper-prototypes: learnable class-wise prototypes, trained by gradient matching."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedbench.context import ClientContext, ServerContext
from fedbench.hookspecs import hookimpl
from fedbench.types import PerClass, Report, ServerState, ServerUpdate, Value, Weights

from .class_batches import SCRATCH

EPSILON = 1e-6


def class_gradients(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> PerClass:
    """Return the gradient that each class's real samples induce in feature space (FedHPro).

    ``g_c = 1/n * mean_i (softmax(W z_i + b) - onehot(c)) W`` over the n samples of class c: the
    gradient of the class batch's mean cross-entropy with respect to its features, averaged over the
    samples. Both factors 1/n are in the published code.

    Args:
        features: (N, d).
        labels: (N,) int64.
        weight: (C, d), the classifier's.
        bias: (C,).

    Returns:
        one row (d,) for each class present.
    """
    residual = F.softmax(features @ weight.T + bias, dim=1)
    residual = residual - F.one_hot(labels, len(bias)).to(residual)
    mean = PerClass.means(residual @ weight, labels)
    return PerClass(mean.labels, mean.values / mean.counts[:, None], mean.counts)


def distance(induced: Tensor, target: Tensor, kind: str) -> Tensor:
    """Return the matching distance of each class, (n,), between gradients (n, d).

    ``coordinate`` sums ``1 - gh/(|g||h| + 1e-6)`` over coordinates, ``cosine`` takes it over the
    whole vectors, ``mse`` is the squared distance.
    """
    if kind == "mse":
        return (induced - target).square().sum(1)
    if kind == "cosine":
        norms: Tensor = torch.linalg.vector_norm(induced, dim=1) * torch.linalg.vector_norm(
            target, dim=1
        )
        return 1 - (induced * target).sum(1) / (norms + EPSILON)
    return (1 - induced * target / (induced.abs() * target.abs() + EPSILON)).sum(1)


def _induced(
    prototypes: Tensor, labels: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients (n, d) that prototypes (n, M, d) induce, and their probabilities."""
    m = prototypes.shape[1]
    probabilities = F.softmax(prototypes @ weight.T + bias, dim=2)
    mean = probabilities.mean(dim=1) - F.one_hot(labels, len(bias)).to(probabilities)
    return mean @ weight / m, probabilities


def matching_loss(
    hyper_prototypes: Tensor, gradients: PerClass, weight: Tensor, bias: Tensor, kind: str
) -> float:
    """Return the sum over the reported classes of the matching distance."""
    chosen = hyper_prototypes[gradients.labels]
    induced, _ = _induced(chosen, gradients.labels, weight, bias)
    return float(distance(induced, gradients.values, kind).sum())


def match(
    hyper_prototypes: Tensor,
    gradients: PerClass,
    weight: Tensor,
    bias: Tensor,
    steps: int,
    lr: float,
    distance: str,
) -> Tensor:
    """Move hyper-prototypes so that the gradient they induce matches the clients' (FedHPro).

    Plain SGD on ``sum_c D(ghat_c, g_c)``; ``ghat_c`` is the mean over class c's M hyper-prototypes
    of the gradient of their mean cross-entropy (two factors 1/M). The gradient through ``ghat`` is
    written out, since double backward costs several times more.

    Args:
        hyper_prototypes: (C, M, d).
        gradients: one row (d,) per class to match; other classes stay as they are.
        weight: (C, d), the global classifier's.
        bias: (C,).
        steps: SGD steps.
        lr: learning rate.
        distance: ``coordinate`` (published), ``cosine`` or ``mse``; see `distance`.

    Returns:
        new hyper-prototypes (C, M, d).
    """
    labels, target = gradients.labels, gradients.values
    moved = hyper_prototypes[labels].clone()
    m = moved.shape[1]
    for _ in range(steps):
        induced, p = _induced(moved, labels, weight, bias)
        upstream = _distance_gradient(induced, target, distance)
        along = (upstream @ weight.T)[:, None, :]
        jacobian = p * (along - (p * along).sum(dim=2, keepdim=True))
        moved -= lr / m**2 * (jacobian @ weight)
    result = hyper_prototypes.clone()
    result[labels] = moved
    return result


def _distance_gradient(induced: Tensor, target: Tensor, kind: str) -> Tensor:
    leaf = induced.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(distance(leaf, target, kind).sum(), leaf)
    return gradient


@dataclass(frozen=True, eq=False)
class HyperPrototypes:
    """Learn M hyper-prototypes per class on the server by matching the clients' gradients."""

    requires = ("class_batches",)

    per_class: Annotated[int, Field(ge=1, description="hyper-prototypes per class, M")] = 5
    steps: Annotated[int, Field(ge=0, description="matching steps a round")] = 30
    lr: Annotated[float, Field(gt=0, description="learning rate of matching")] = 0.1
    matching_distance: Annotated[
        Literal["coordinate", "cosine", "mse"], Field(description="distance of gradients")
    ] = "coordinate"

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        d = weights["classifier.weight"].shape[1]
        shape = (ctx.num_classes, self.per_class, d)
        return {"hyper_prototypes": torch.randn(shape, generator=ctx.rng("hyper_prototypes"))}

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {"hyper_prototypes": state.entries["hyper_prototypes"]}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        layer = ctx.model.classifier
        draws = [
            class_gradients(z, y, layer.weight.detach(), layer.bias.detach())  # type: ignore[union-attr,operator]
            for z, y in ctx.scratch[SCRATCH]
        ]
        ctx.upload("class_gradients", PerClass.concat(draws).average())
        features, labels = ctx.scratch[SCRATCH][0]
        means = PerClass.means(features, labels)
        anchors = ctx.payload.tensor("hyper_prototypes").mean(dim=1)[means.labels]
        cosine = F.cosine_similarity(means.values, anchors).mean()
        ctx.metric("hyper_prototypes.alignment", cosine)
        return (yield)

    @hookimpl
    def server_update(self, state: ServerState, reports: Sequence[Report]) -> ServerUpdate:
        uploads = [r.uploads.per_class("class_gradients") for r in reports]
        gradients = PerClass.concat(uploads).average()
        before = state.entries.tensor("hyper_prototypes")
        kind = self.matching_distance
        after = match(before, gradients, *state.classifier, self.steps, self.lr, kind)
        metrics = {
            "matching_loss_before": matching_loss(before, gradients, *state.classifier, kind),
            "matching_loss_after": matching_loss(after, gradients, *state.classifier, kind),
            "movement": float((after - before)[gradients.labels].abs().mean()),
        }
        named = {f"hyper_prototypes.{name}": value for name, value in metrics.items()}
        return ServerUpdate(entries={"hyper_prototypes": after}, metrics=named)
