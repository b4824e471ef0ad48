"""Modifiers of the training data: of all of it before the partition, or of each client's after it.

They compose with every partition. Test data are left unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedbench.errors import ConfigError, did_you_mean
from fedbench.hookspecs import hookimpl
from fedbench.types import Dataset, Examples

from .partitions import Ints


def long_tail_sizes(available: Ints, rho: float) -> Ints:
    """Return ``floor(n_max rho^(-c / (C - 1)))`` for each class c.

    ``n_max`` is the largest value for which every class has that many examples: the size of class
    0 when all classes have the same size.

    Args:
        available: (C,) number of examples of each class.
        rho: the imbalance ratio, first class to last; at least 1.
    """
    last = max(1, len(available) - 1)
    shape = rho ** (-np.arange(len(available)) / last)
    n_max = (available / shape).min()
    # 5000 / 100 must not become 49 because the quotient is computed as 49.999...
    sizes: Ints = np.floor(n_max * shape * (1 + 1e-12)).astype(np.int64)
    return sizes


@dataclass(frozen=True, eq=False)
class LongTail:
    """Thin out the training examples so that class sizes fall exponentially (long tail).

    ``n_c = n_max rho^(-c / (C - 1))`` (Cui et al., CVPR 2019): class 0 is the largest, ``rho``
    times as large as the last. CIFAR-10 with ``rho`` 100: 5000, 2997, 1796, ..., 83, 50. Examples
    are dropped at random, from all domains together.
    """

    rho: Annotated[
        float, Field(ge=1, description="size of the first class relative to the last")
    ] = 100.0

    @hookimpl
    def prepare_data(self, data: Dataset, rng: np.random.Generator) -> Dataset:
        labels = data.train.labels.numpy()
        available = np.bincount(labels, minlength=len(data.classes))
        sizes = long_tail_sizes(available, self.rho)
        for name, n, size in zip(data.classes, available, sizes, strict=True):
            if not size:
                raise ConfigError(
                    f"long_tail.rho: {self.rho:g} leaves no example of class {name!r}, which has "
                    f"{n:,}; use a smaller rho"
                )
        kept = [
            rng.permutation(np.flatnonzero(labels == label))[:size]
            for label, size in enumerate(sizes)
        ]
        index = torch.from_numpy(np.sort(np.concatenate(kept)))
        return replace(data, train=data.train[index])


@dataclass(frozen=True, eq=False)
class Subset:
    """Keep a random share of the training examples, the same share of each class in each domain.

    For studies that a machine can afford. Sizes are rounded, and at least one example is kept.
    """

    share: Annotated[float, Field(gt=0, le=1, description="share of the examples to keep")] = 0.1

    @hookimpl
    def prepare_data(self, data: Dataset, rng: np.random.Generator) -> Dataset:
        labels, domains = data.train.labels.numpy(), data.train.domains.numpy()
        cells = domains * len(data.classes) + labels
        kept = []
        for cell in np.unique(cells):
            members = rng.permutation(np.flatnonzero(cells == cell))
            kept.append(members[: max(1, round(self.share * len(members)))])
        return replace(data, train=data.train[torch.from_numpy(np.sort(np.concatenate(kept)))])


def noisy_labels(
    labels: Ints, num_classes: int, rate: float, kind: str, rng: np.random.Generator
) -> Ints:
    """Make each label wrong with probability ``rate``, independently of the others.

    Args:
        labels: (n,) the correct classes.
        num_classes: C, at least 2.
        rate: probability of a wrong label.
        kind: ``symmetric`` (any other class, equally likely) or ``pairs`` (the next class; 0 after
            the last).
        rng: the stream to draw from. Every rate uses the same draws: a label that is wrong at a
            low rate is wrong in the same way at a higher one.
    """
    flipped = rng.random(len(labels)) < rate
    shift = rng.integers(1, num_classes, len(labels)) if kind == "symmetric" else 1
    return np.where(flipped, (labels + shift) % num_classes, labels)


@dataclass(frozen=True, eq=False)
class LabelNoise:
    """Give some of every client's training examples a wrong label, the same in every round.

    ``symmetric``: any other class; ``pairs``: the next class (Han et al., Co-teaching, NeurIPS
    2018). The data are partitioned by their correct labels.
    """

    rate: Annotated[float, Field(ge=0, le=1, description="share of wrong labels")] = 0.2
    kind: Annotated[
        Literal["symmetric", "pairs"],
        Field(description="symmetric: any other class; pairs: the next class"),
    ] = "symmetric"

    @hookimpl
    def client_data(self, data: Examples, num_classes: int, rng: np.random.Generator) -> Examples:
        if num_classes < 2:
            raise ConfigError("label_noise needs at least 2 classes; this data set has 1")
        labels = noisy_labels(data.labels.numpy(), num_classes, self.rate, self.kind, rng)
        return replace(data, labels=torch.from_numpy(labels))


@dataclass(frozen=True, eq=False)
class LeaveOut:
    """Train on all domains but one and test on that one alone (leave-one-domain-out)."""

    domain: Annotated[str, Field(min_length=1, description="the domain used only for testing")]

    @hookimpl
    def prepare_data(self, data: Dataset) -> Dataset:
        if self.domain not in data.domains:
            raise ConfigError(
                f"leave_out.domain: no domain {self.domain!r}"
                f"{did_you_mean(self.domain, data.domains)}"
            )
        number = data.domains.index(self.domain)
        train = data.train[(data.train.domains != number).nonzero().flatten()]
        test = data.test[(data.test.domains == number).nonzero().flatten()]
        return replace(data, train=train, test=test)


def add_noise(inputs: Tensor, deviation: float, rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise to each value.

    Args:
        inputs: (n, ...) float, or uint8, which stays uint8, rounded and clipped to 0..255.
        deviation: standard deviation, in units where uint8's 255 is 1.
        rng: the stream to draw from.
    """
    noise = torch.from_numpy(rng.standard_normal(tuple(inputs.shape), dtype=np.float32))
    if inputs.dtype != torch.uint8:
        return inputs + noise.mul_(deviation).to(inputs.dtype)
    return noise.mul_(255 * deviation).add_(inputs).round_().clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class FeatureNoise:
    """Add Gaussian noise to every client's training inputs, the same in every round.

    ``linear`` makes clients differ (noise-based feature imbalance, Li et al., ICDE 2022): client i
    of N, from 0, gets the standard deviation ``deviation * i / (N - 1)``, as in their released
    code. ``constant`` gives all of them the same deviation.
    """

    deviation: Annotated[
        float, Field(ge=0, description="standard deviation of the noise, for inputs in [0, 1]")
    ] = 0.1
    growth: Annotated[
        Literal["constant", "linear"],
        Field(description="linear: from 0 for client 0 to the full deviation for the last"),
    ] = "linear"

    @hookimpl
    def client_data(
        self, data: Examples, client: int, num_clients: int, rng: np.random.Generator
    ) -> Examples:
        if data.inputs.dtype != torch.uint8 and not data.inputs.is_floating_point():
            raise ConfigError(
                f"feature_noise takes uint8 or float inputs; this data set's are "
                f"{str(data.inputs.dtype).removeprefix('torch.')}"
            )
        deviation = self.deviation
        if self.growth == "linear":
            deviation *= client / max(1, num_clients - 1)
        if deviation == 0:
            return data
        return replace(data, inputs=add_noise(data.inputs, deviation, rng))
