"""FedHPro's classifier recalibration: retrain the classifier on features matched to gradients.

The released code does it; the paper's abstract does not mention it. The idea is that of CReFF
(Shang et al., IJCAI 2022).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench.context import ClientContext, ServerContext
from fedbench.hookspecs import hookimpl
from fedbench.types import PerClass, Report, ServerState, ServerUpdate, Value, Weights

from .class_batches import real_samples
from .matching import descend, mean_upload, one_minus_cosine, residual


def classifier_gradients(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor
) -> tuple[PerClass, PerClass]:
    """Return the gradients of each class's mean cross-entropy with respect to the classifier.

    Args:
        features: (N, d).
        labels: (N,) int64.
        weight: (C, d), the classifier's weight.
        bias: (C,), its bias.

    Returns:
        rows (C, d) for the weight and rows (C,) for the bias, one per class present.
    """
    errors = residual(features, labels, weight, bias)
    rows = PerClass.means(errors, labels)
    sums = [errors[labels == c].T @ features[labels == c] for c in rows.labels]
    means = torch.stack(sums) / rows.counts[:, None, None]
    return PerClass(rows.labels, means, rows.counts), rows


def match_features(
    features: Tensor,
    weight_gradients: PerClass,
    bias_gradients: PerClass,
    weight: Tensor,
    bias: Tensor,
    steps: int,
    lr: float,
) -> Tensor:
    """Move features so that the classifier gradients they induce match the clients' (SGD).

    Minimises one minus the cosine for each row of ``dW`` and for ``db``, summed over the reported
    classes.

    Args:
        features: (C, F, d), F features per class.
        weight_gradients: rows (C, d) per class to match.
        bias_gradients: rows (C,) of the same classes, in the same order.
        weight: (C, d), the weight of the last round's classifier.
        bias: (C,), its bias.
        steps: number of SGD steps.
        lr: learning rate.

    Returns:
        new features (C, F, d); classes without a gradient are unchanged.
    """
    labels = weight_gradients.labels

    def loss(moved: Tensor) -> Tensor:
        z = moved[labels]
        errors = residual(z, labels[:, None], weight, bias) / z.shape[1]
        rows = one_minus_cosine(errors.mT @ z, weight_gradients.values)
        return rows.sum() + one_minus_cosine(errors.sum(1), bias_gradients.values).sum()

    return descend(features, loss, steps, lr)


def train_classifier(
    features: Tensor, epochs: int, batch_size: int, lr: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Train a new linear classifier on features by SGD, with the gradient in closed form.

    Args:
        features: (C, F, d), class by class.
        epochs: passes over all C x F features.
        batch_size: features per batch.
        lr: learning rate.
        rng: the random stream for the initial weights and the order.

    Returns:
        weight (C, d) and bias (C,).
    """
    classes, per_class, d = features.shape
    x, y = features.flatten(0, 1), torch.eye(classes).repeat_interleave(per_class, dim=0)
    bound = d**-0.5  # nn.Linear's own initialisation
    weight = nn.init.uniform_(torch.empty(classes, d), -bound, bound, generator=rng)
    bias = nn.init.uniform_(torch.empty(classes), -bound, bound, generator=rng)
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=rng).split(batch_size):
            batch = x[index]
            errors = F.softmax(torch.addmm(bias, batch, weight.T), dim=1).sub_(y[index])
            weight.addmm_(errors.T, batch, alpha=-lr / len(index))
            bias.sub_(errors.sum(dim=0), alpha=lr / len(index))
    return weight, bias


@dataclass(frozen=True, eq=False)
class Recalibration:
    """Replace the global classifier with one trained on features that match clients' gradients."""

    requires = ("class_batches",)

    features_per_class: Annotated[int, Field(ge=1, description="learnable features per class")] = 50
    steps: Annotated[int, Field(ge=0, description="matching steps per round")] = 100
    lr: Annotated[float, Field(gt=0, description="learning rate for matching")] = 0.1
    epochs: Annotated[int, Field(ge=1, description="epochs for training the new classifier")] = 100
    batch_size: Annotated[
        int, Field(ge=1, description="batch size for training the new classifier")
    ] = 50
    classifier_lr: Annotated[
        float, Field(gt=0, description="learning rate for training the new classifier")
    ] = 0.01
    until: Annotated[
        int | None,
        Field(ge=0, description="the last round with recalibration; by default all rounds have it"),
    ] = None

    @hookimpl
    def init_server(self, ctx: ServerContext, weights: Weights) -> Mapping[str, Value]:
        d = weights["classifier.weight"].shape[1]
        shape = (ctx.num_classes, self.features_per_class, d)
        return {
            "recalibration.features": torch.randn(shape, generator=ctx.rng("recalibration")),
            "recalibration.weight": weights["classifier.weight"],
            "recalibration.bias": weights["classifier.bias"],
        }

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        if self._is_over(ctx.round):
            return (yield)
        gradients = [classifier_gradients(*drawn) for drawn in real_samples(ctx)]
        weights, biases = zip(*gradients, strict=True)
        ctx.upload("classifier_weight_gradients", PerClass.concat(weights).average())
        ctx.upload("classifier_bias_gradients", PerClass.concat(biases).average())
        return (yield)

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, reports: Sequence[Report]
    ) -> ServerUpdate:
        if self._is_over(ctx.round):
            return ServerUpdate()
        features = match_features(
            state.entries.tensor("recalibration.features"),
            mean_upload(reports, "classifier_weight_gradients"),
            mean_upload(reports, "classifier_bias_gradients"),
            state.entries.tensor("recalibration.weight"),
            state.entries.tensor("recalibration.bias"),
            self.steps,
            self.lr,
        )
        rng = ctx.rng("recalibration")
        weight, bias = train_classifier(
            features, self.epochs, self.batch_size, self.classifier_lr, rng
        )
        return ServerUpdate(
            entries={
                "recalibration.features": features,
                "recalibration.weight": weight,
                "recalibration.bias": bias,
            },
            weights={"classifier.weight": weight, "classifier.bias": bias},
        )

    def _is_over(self, number: int) -> bool:
        return self.until is not None and number > self.until
