"""FedHPro's hyper-prototypes: learnable class-wise prototypes, trained by gradient matching."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench.context import ClientContext, ServerContext
from fedbench.hookspecs import hookimpl
from fedbench.types import PerClass, Report, ServerState, ServerUpdate, Value, Weights

from .class_batches import real_samples
from .matching import EPSILON, descend, mean_upload, one_minus_cosine, residual


def class_gradients(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> PerClass:
    """Return the gradient that each class's real samples induce in feature space (FedHPro).

    ``g_c = 1/n * mean_i (softmax(W z_i + b) - onehot(c)) W`` over the n samples of class c: the
    gradient of the class batch's mean cross-entropy with respect to its features, averaged over the
    samples. Both factors 1/n are in the published code.

    Args:
        features: (N, d).
        labels: (N,) int64.
        weight: (C, d), the classifier's weight.
        bias: (C,), its bias.

    Returns:
        one row (d,) per class present.
    """
    mean = PerClass.means(residual(features, labels, weight, bias) @ weight, labels)
    return PerClass(mean.labels, mean.values / mean.counts[:, None], mean.counts)


def distance(induced: Tensor, target: Tensor, kind: str) -> Tensor:
    """Return the matching distance between two gradients for each class, (n,).

    Args:
        induced: (n, d), the gradients g that the hyper-prototypes induce.
        target: (n, d), the clients' gradients h.
        kind: ``coordinate``, the sum of ``1 - gh/(|g||h| + 1e-6)`` over single coordinates;
            ``cosine``, the same for whole vectors; or ``mse``, the squared distance.
    """
    if kind == "mse":
        return (induced - target).square().sum(1)
    if kind == "cosine":
        return one_minus_cosine(induced, target)
    return (1 - induced * target / (induced.abs() * target.abs() + EPSILON)).sum(1)


def matching_loss(
    hyper_prototypes: Tensor, gradients: PerClass, weight: Tensor, bias: Tensor, kind: str
) -> Tensor:
    """Return ``sum_c D(ghat_c, g_c)`` over the reported classes; arguments as in `match`.

    ``ghat_c`` is the mean over class c's M hyper-prototypes of the gradient of their mean
    cross-entropy, and therefore has two factors 1/M.
    """
    chosen, labels = hyper_prototypes[gradients.labels], gradients.labels[:, None]
    induced = residual(chosen, labels, weight, bias).mean(1) @ weight / chosen.shape[1]
    return distance(induced, gradients.values, kind).sum()


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

    Runs plain SGD on `matching_loss`.

    Args:
        hyper_prototypes: (C, M, d).
        gradients: one row (d,) per class to match; other classes are unchanged.
        weight: (C, d), the global classifier's weight.
        bias: (C,), its bias.
        steps: number of SGD steps.
        lr: learning rate.
        distance: ``coordinate`` (published), ``cosine`` or ``mse``; see `distance`.

    Returns:
        new hyper-prototypes (C, M, d).
    """
    return descend(
        hyper_prototypes, lambda s: matching_loss(s, gradients, weight, bias, distance), steps, lr
    )


def initial(num_classes: int, per_class: int, d: int, start: str, rng: torch.Generator) -> Tensor:
    """Return the first hyper-prototypes (C, M, d); coordinates have a mean square of about 1.

    Args:
        num_classes: C.
        per_class: M.
        d: feature size.
        start: ``normal``: standard normal. ``orthogonal``: each class has one random direction M
            times, orthogonal to those of other classes; with C > d that is impossible, and the
            columns are orthogonal instead.
        rng: the random stream.
    """
    if start == "normal":
        return torch.randn(num_classes, per_class, d, generator=rng)
    rows = torch.empty(num_classes, d)
    nn.init.orthogonal_(rows, generator=rng)
    scaled: Tensor = d**0.5 * F.normalize(rows, dim=1)
    return scaled[:, None].repeat(1, per_class, 1)


@dataclass(frozen=True, eq=False)
class HyperPrototypes:
    """Learn M hyper-prototypes per class on the server by matching the clients' gradients."""

    requires = ("class_batches",)
    anchors = ("hyper_prototypes",)

    per_class: Annotated[
        int, Field(ge=1, description="number of hyper-prototypes per class, M")
    ] = 5
    steps: Annotated[int, Field(ge=0, description="matching steps per round")] = 30
    lr: Annotated[float, Field(gt=0, description="learning rate for matching")] = 0.1
    matching_distance: Annotated[
        Literal["coordinate", "cosine", "mse"], Field(description="distance between gradients")
    ] = "coordinate"
    start: Annotated[
        Literal["normal", "orthogonal"],
        Field(
            description="standard normal, as published, or one direction per class, orthogonal to "
            "the others, for all of its hyper-prototypes"
        ),
    ] = "normal"

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        shape = ctx.num_classes, self.per_class, weights["classifier.weight"].shape[1]
        return {"hyper_prototypes": initial(*shape, self.start, ctx.rng("hyper_prototypes"))}

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {"hyper_prototypes": state.entries["hyper_prototypes"]}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        draws = real_samples(ctx)
        gradients = PerClass.concat(class_gradients(*drawn) for drawn in draws)
        ctx.upload("class_gradients", gradients.average())
        means = PerClass.means(draws[0].features, draws[0].labels)
        anchors = ctx.payload.tensor("hyper_prototypes").mean(dim=1)[means.labels]
        cosine = F.cosine_similarity(means.values, anchors).mean()
        ctx.metric("hyper_prototypes.alignment", cosine)
        return (yield)

    @hookimpl
    def server_update(self, state: ServerState, reports: Sequence[Report]) -> ServerUpdate:
        problem = mean_upload(reports, "class_gradients"), *state.classifier
        before = state.entries.tensor("hyper_prototypes")
        after = match(before, *problem, self.steps, self.lr, self.matching_distance)
        metrics = {
            "matching_loss_before": matching_loss(before, *problem, self.matching_distance),
            "matching_loss_after": matching_loss(after, *problem, self.matching_distance),
            "movement": (after - before)[problem[0].labels].abs().mean(),
        }
        named = {f"hyper_prototypes.{name}": float(value) for name, value in metrics.items()}
        return ServerUpdate(entries={"hyper_prototypes": after}, metrics=named)
