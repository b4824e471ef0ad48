"""Pieces that show what fedbench itself costs: a model of any size, clients that train nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench import ClientContext, Dataset, Examples, hookimpl

fedbench_api = 1


@dataclass(frozen=True, eq=False)
class Noise:
    """Random grey pictures, as many as asked for, and 100 to test on."""

    examples: Annotated[int, Field(ge=1, description="training examples")] = 1000
    side: Annotated[int, Field(ge=1, description="pixels on each side")] = 8

    def load(self, root: Path) -> Dataset:
        return Dataset(tuple("0123456789"), ("noise",), self.draw(self.examples), self.draw(100))

    def draw(self, size: int) -> Examples:
        rng = torch.Generator().manual_seed(size)
        shape = (size, 1, self.side, self.side)
        pixels = torch.randint(256, shape, generator=rng, dtype=torch.uint8)
        labels = torch.randint(10, (size,), generator=rng)
        return Examples(pixels, labels, torch.zeros_like(labels))


class BallastModule(nn.Module):
    """See `Ballast`."""

    def __init__(self, size: int, tensors: int, classes: int) -> None:
        super().__init__()
        each = (size // tensors,)
        self.ballast = nn.ParameterList(nn.Parameter(torch.zeros(each)) for _ in range(tensors))
        self.classifier = nn.Linear(1, classes)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


@dataclass(frozen=True, eq=False)
class Ballast:
    """A model with weights that no pass uses, in tensors of equal size."""

    parameters: Annotated[int, Field(ge=1, description="how many weights")] = 100_000
    tensors: Annotated[int, Field(ge=1, description="in how many tensors")] = 20

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return BallastModule(self.parameters, self.tensors, num_classes)


@dataclass(frozen=True, eq=False)
class Idle:
    """Clients that train nothing, and keep a vector of their own if asked to."""

    state: Annotated[int, Field(ge=0, description="numbers that a client keeps")] = 0

    @hookimpl
    def train(self, ctx: ClientContext) -> bool:
        if self.state:
            ctx.state["kept"] = torch.full((self.state,), float(ctx.round))
        return True


@hookimpl
def register_datasets() -> Mapping[str, type]:
    return {"growth-noise": Noise}


@hookimpl
def register_models() -> Mapping[str, type]:
    return {"growth-ballast": Ballast}


@hookimpl
def register_plugins() -> Mapping[str, type]:
    return {"growth_idle": Idle}
