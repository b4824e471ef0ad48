"""The kit's own parts: tiny data, a tiny model, and the simplest pieces of a run.

With them a plugin runs without any other package. `register` registers them under names that begin
with ``kit_``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..context import ClientContext, ServerContext
from ..hookspecs import hookimpl
from ..plugins.registry import Entry, Registry
from ..training import Training
from ..turns import Effort
from ..types import Batch, ClientResult, Dataset, Examples, Output, ServerState, Value, Weights

CLASSES = ("circle", "square", "star")
DOMAINS = ("ink", "chalk")
CLIENTS = ("ann", "bob", "cleo", "dan")
SHAPES = {"grey": (1, 8, 8), "rgb": (3, 32, 32), "ids": (12,), "numbers": (20,)}
Form = Literal["grey", "rgb", "ids", "numbers"]


@dataclass(frozen=True, eq=False)
class TinyData:
    """Noisy patterns of up to three classes in two domains, ``ink`` and ``chalk``, without files.

    Two clients of its own drew with ``ink`` and two with ``chalk``, in turns. ``grey`` is uint8
    (1, 8, 8), ``rgb`` uint8 (3, 32, 32), ``ids`` int64 (12,), ``numbers`` float (20,). The domains
    differ in contrast.
    """

    examples: Annotated[int, Field(ge=3, description="training examples per domain")] = 36
    classes: Annotated[int, Field(ge=1, le=3, description="how many classes")] = 3
    form: Annotated[Form, Field(description="what an input is")] = "grey"

    def load(self, root: Path) -> Dataset:
        """Draw the examples; ``root`` is ignored."""
        generator = torch.Generator().manual_seed(7)
        shape = SHAPES[self.form]
        patterns = torch.randint(0, 128, (self.classes, *shape), generator=generator)

        def split(size: int) -> Examples:
            parts = []
            for number in range(len(DOMAINS)):
                labels = torch.arange(size) % self.classes
                noise = torch.randint(0, 100, (size, *shape), generator=generator)
                values = patterns[labels] // (number + 1) + noise
                domains = torch.full((size,), number)
                clients = 2 * domains + torch.arange(size) % 2
                parts.append((self._inputs(values), labels, domains, clients))
            return Examples(*(torch.cat(p) for p in zip(*parts, strict=True)))

        train, test = split(self.examples), split(12)
        return Dataset(CLASSES[: self.classes], DOMAINS, train, test, CLIENTS)

    def _inputs(self, values: Tensor) -> Tensor:
        if self.form == "ids":
            return values
        return values.float() / 255 if self.form == "numbers" else values.to(torch.uint8)


class TinyModule(nn.Module):
    """See `TinyModel`."""

    def __init__(self, shape: tuple[int, ...], d: int, classes: int, norm: str = "batch") -> None:
        super().__init__()
        self.hidden = nn.Linear(math.prod(shape), d)
        self.norm = nn.BatchNorm1d(d) if norm == "batch" else nn.Identity()
        self.classifier = nn.Linear(d, classes)

    def features(self, x: Tensor) -> Tensor:
        """Map inputs (B, ...) to features (B, d)."""
        h = self.hidden(x.flatten(1).float())
        # Batch norm can't train on a single example.
        return torch.relu(self.norm(h) if len(h) > 1 or not self.training else h)


@dataclass(frozen=True, eq=False)
class TinyModel:
    """One hidden layer, by default with batch norm, for inputs of any shape."""

    feature_size: Annotated[int, Field(ge=1, description="feature size")] = 6
    norm: Annotated[Literal["batch", "none"], Field(description="its normalisation")] = "batch"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Return a freshly initialised model."""
        return TinyModule(input_shape, self.feature_size, num_classes, self.norm)


@dataclass(frozen=True, eq=False)
class KitPartition:
    """Divide the examples in one of the ways that plugins must work with.

    ``plain``: two clients per domain. ``one_client``: one client holds all examples. ``one_class``:
    each client holds one class, and no client holds the last. ``odd``: clients with 1, 9 and 17
    (or again 9) examples, so that batches of 8 end with a batch of one.
    """

    form: Annotated[
        Literal["plain", "one_client", "one_class", "odd"], Field(description="who holds what")
    ] = "plain"

    @hookimpl
    def partition(self, data: Dataset) -> Sequence[Tensor]:
        labels, domains = data.train.labels, data.train.domains
        if self.form == "plain":
            homes = [(domains == d).nonzero().flatten() for d in domains.unique()]
            parts = [home[start::2] for home in homes for start in (0, 1)]
        elif self.form == "one_client":
            parts = [torch.arange(len(labels))]
        elif self.form == "one_class":
            held = range(max(1, len(data.classes) - 1))
            parts = [(labels == c).nonzero().flatten() for c in held]
        else:
            rest = min(17, len(labels) - 10)
            index = torch.arange(len(labels))
            parts = [index[:1], index[1:10], index[10:][: rest - (rest - 1) % 8]]
        return [part for part in parts if len(part)]


@dataclass(frozen=True, eq=False)
class KitSelection:
    """Select all clients, or one per round, in turn."""

    one: Annotated[bool, Field(description="one client per round instead of all")] = False

    @hookimpl
    def select_clients(self, ctx: ServerContext) -> Sequence[int]:
        if self.one:
            return [(ctx.round - 1) % ctx.num_clients]
        return range(ctx.num_clients)


@dataclass(frozen=True, eq=False)
class KitClock:
    """Let clients with a higher id take longer, so that no two of them answer at the same time."""

    @hookimpl
    def duration(self, effort: Effort) -> float:
        return effort.examples * (1 + effort.client / 4)


@dataclass(frozen=True, eq=False)
class KitTraining:
    """Plain SGD over the client's batches."""

    lr: Annotated[float, Field(gt=0, description="learning rate")] = 0.05
    epochs: Annotated[int, Field(ge=1, description="local epochs per round")] = 1
    batch_size: Annotated[int, Field(ge=1, description="examples per batch")] = 8

    @hookimpl
    def train(self, ctx: ClientContext, work: Training) -> bool:
        work.lr, work.momentum = self.lr, 0.0
        optimizer = torch.optim.SGD(work.parameters, lr=self.lr)
        for batch in work.batches(self.batch_size, self.epochs):
            work.backward(batch)
            optimizer.step()
        return True


@dataclass(frozen=True, eq=False)
class KitWeights:
    """Send the global weights to the clients, and the clients' weights back."""

    @hookimpl
    def broadcast(self, state: ServerState) -> Mapping[str, Value]:
        return {"weights": state.weights}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        ctx.upload("weights", ctx.model.state_dict())
        return trained


@dataclass(frozen=True, eq=False)
class KitMean:
    """Average the clients' weights, weighted by number of examples."""

    @hookimpl
    def aggregate(self, results: Iterator[ClientResult]) -> Weights:
        sums: dict[str, Tensor] = {}
        total, kinds = 0, {}
        for result in results:
            total += result.examples
            for name, value in result.uploads.weights().items():
                kinds[name] = value.dtype
                sums[name] = sums.get(name, torch.zeros(())) + value.double() * result.examples
        return {name: (value / total).to(kinds[name]) for name, value in sums.items()}


@dataclass(frozen=True, eq=False)
class KitLoss:
    """The mean cross-entropy of the classifier's logits."""

    @hookimpl
    def local_loss(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return {"kit_loss": F.cross_entropy(output.logits, batch.labels)}


@dataclass(frozen=True, eq=False)
class KitSecond:
    """Train a copy of the model before a turn's training; the pass is not recorded."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        ctx.train(copy.deepcopy(ctx.model), stream="kit_second")
        return (yield)


PIECES: Mapping[str, type] = {
    "kit_partition": KitPartition,
    "kit_selection": KitSelection,
    "kit_clock": KitClock,
    "kit_training": KitTraining,
    "kit_weights": KitWeights,
    "kit_mean": KitMean,
    "kit_loss": KitLoss,
}
"""The pieces by name, in the order in which a run has them."""


def register(registry: Registry, **more: tuple[str, type]) -> Registry:
    """Return a copy of ``registry`` with the kit's parts added.

    Args:
        registry: what is installed; it is not changed.
        more: name -> (kind, class) of further things to add.
    """
    copy = Registry({k: list(v) for k, v in registry.entries.items()}, dict(registry.failures))
    things = {name: ("plugin", cls) for name, cls in PIECES.items()}
    things |= {"kit_second": ("plugin", KitSecond)}
    things |= {"kit_data": ("dataset", TinyData), "kit_model": ("model", TinyModel), **more}
    for name, (kind, cls) in things.items():
        copy.entries[kind, name] = [Entry(kind, name, cls, "fedbench.testing", "")]
    return copy
