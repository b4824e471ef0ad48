"""The real samples whose gradients FedHPro matches: one batch per class, before local training."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench.context import ClientContext
from fedbench.hookspecs import hookimpl
from fedbench.pipeline import eval_batch
from fedbench.types import forward

SCRATCH = "class_batches"
"""Scratch key; read it through `real_samples`."""


class RealSamples(NamedTuple):
    """Real samples of all classes that a client holds, as the model that it received sees them.

    The fields have the order of the arguments of the gradients' closed forms.

    Attributes:
        features: (n, d), without gradient.
        labels: (n,) int64.
        weight: (C, d), a copy of the received classifier's weight.
        bias: (C,), a copy of its bias.
    """

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor


def real_samples(ctx: ClientContext) -> Sequence[RealSamples]:
    """Return the samples that `ClassBatches` drew in this turn, one entry per repeat.

    A plugin that calls this names ``class_batches`` in its ``requires``.
    """
    drawn: Sequence[RealSamples] = ctx.scratch[SCRATCH]
    return drawn


@dataclass(frozen=True, eq=False)
class ClassBatches:
    """Run real samples of each class through the received model, for gradients per class.

    At most ``size`` examples are drawn of each class that the client holds. All classes run through
    the model together, in evaluation mode and without gradient. For the rest of the turn, plugins
    get the result from `real_samples`.
    """

    size: Annotated[int, Field(ge=1, description="maximum number of examples per class")] = 100
    repeats: Annotated[
        int, Field(ge=1, description="number of times the class batches are drawn")
    ] = 1
    augment: Annotated[
        bool,
        Field(description="augment each class batch with one random strategy; images only"),
    ] = True

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        rng = ctx.rng("class_batches")
        ctx.scratch[SCRATCH] = [self._draw(ctx, rng) for _ in range(self.repeats)]
        return (yield)

    @torch.no_grad()
    def _draw(self, ctx: ClientContext, rng: torch.Generator) -> RealSamples:
        inputs, labels = [], []
        for label in ctx.data.labels.unique():
            members = (ctx.data.labels == label).nonzero().flatten()
            chosen = members[torch.randperm(len(members), generator=rng)[: self.size]]
            x = ctx.prepare(ctx.data.inputs[chosen])
            inputs.append(augment(x, rng) if self.augment and x.ndim == 4 else x)
            labels.append(ctx.data.labels[chosen])
        ctx.model.eval()
        batches = torch.cat(inputs).split(eval_batch(ctx.device))
        features = torch.cat([forward(ctx.model, x).features for x in batches])
        ctx.model.train()
        layer = cast(nn.Linear, ctx.model.classifier)
        return RealSamples(
            features, torch.cat(labels).to(ctx.device), layer.weight.clone(), layer.bias.clone()
        )


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """Apply one of six strategies, drawn at random, with the same parameters for the whole batch.

    Differentiable siamese augmentation (Zhao and Bilen, ICML 2021) with the ranges of the released
    FedHPro code: colour, crop, cutout, flip, scale, rotate.

    Args:
        images: (n, channels, height, width).
        rng: the random stream to draw from.

    Returns:
        images of the same shape.
    """
    pick = int(torch.randint(len(STRATEGIES), (), generator=rng))
    return STRATEGIES[pick](images, lambda: float(torch.rand((), generator=rng)))


Draw = Callable[[], float]
"""A function that returns a uniform random number in [0, 1)."""


def _colour(x: Tensor, u: Draw) -> Tensor:
    x = x + (u() - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (2 * u()) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (u() + 0.5) + mean


def _crop(x: Tensor, u: Draw) -> Tensor:
    h, w = x.shape[2:]
    reach_y, reach_x = int(h * 0.125 + 0.5), int(w * 0.125 + 0.5)
    top, left = int(u() * (2 * reach_y + 1)), int(u() * (2 * reach_x + 1))
    padded = F.pad(x, (reach_x, reach_x, reach_y, reach_y))
    return padded[:, :, top : top + h, left : left + w]


def _cutout(x: Tensor, u: Draw) -> Tensor:
    h, w = x.shape[2:]
    size_y, size_x = int(h * 0.5 + 0.5), int(w * 0.5 + 0.5)
    top = int(u() * (h + 1 - size_y % 2)) - size_y // 2
    left = int(u() * (w + 1 - size_x % 2)) - size_x // 2
    x = x.clone()
    x[:, :, max(0, top) : top + size_y, max(0, left) : left + size_x] = 0
    return x


def _flip(x: Tensor, u: Draw) -> Tensor:
    return x.flip(3) if u() < 0.5 else x


def _scale(x: Tensor, u: Draw) -> Tensor:
    low, high = 1 / 1.2, 1.2
    return _affine(x, [[low + u() * (high - low), 0, 0], [0, low + u() * (high - low), 0]])


def _rotate(x: Tensor, u: Draw) -> Tensor:
    angle = math.radians((2 * u() - 1) * 15)
    cos, sin = math.cos(angle), math.sin(angle)
    return _affine(x, [[cos, -sin, 0], [sin, cos, 0]])


def _affine(x: Tensor, theta: list[list[float]]) -> Tensor:
    matrix = x.new_tensor(theta).expand(len(x), 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


STRATEGIES = (_colour, _crop, _cutout, _flip, _scale, _rotate)
