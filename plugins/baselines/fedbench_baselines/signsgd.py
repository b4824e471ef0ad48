"""signSGD: one bit per entry, and one scale.

Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD: Compressed Optimisation for Non-Convex
Problems, ICML 2018 (scale 1); Karimireddy, Rebjock, Stich, Jaggi: Error Feedback Fixes SignSGD and
other Gradient Compression Schemes, ICML 2019 (scale: the mean magnitude). The papers were not
re-read.

A tensor of n entries of float32 takes ``ceil(n / 8) + 4`` bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedbench import ClientContext, ClientResult, ServerContext, ServerState, Weights, hookimpl
from fedbench.codec import FeedbackCodec, Slot

from .fedavg import weighted_mean
from .robust import ONE_MEAN
from .robust import ROLE as ROBUST
from .vectors import difference


def encode(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return one bit per entry, 1 where it is at least 0, and the mean magnitude.

    Args:
        values: (n,) floating-point, n >= 1.

    Returns:
        the bits, (ceil(n / 8),) uint8, the first entry in the highest bit, the last byte padded
        with 0 (as `numpy.packbits`), and the scale (), of the type of ``values``.
    """
    bits = F.pad((values >= 0).to(torch.uint8), (0, -len(values) % 8)).reshape(-1, 8)
    packed = (bits << _places(values.device)).sum(dim=1, dtype=torch.uint8)
    return packed, values.double().abs().mean().to(values.dtype)


def decode(packed: Tensor, scale: Tensor, n: int) -> Tensor:
    """Return ``scale`` where the bit is 1 and ``-scale`` where it is 0: (n,), of the same type.

    Args:
        packed: (ceil(n / 8),) uint8, from `encode`.
        scale: (), from `encode`, or 1.
        n: the number of entries.
    """
    bits = (packed[:, None] >> _places(packed.device)) & 1
    return torch.where(bits.flatten()[:n].bool(), scale, -scale)


def _places(device: torch.device) -> Tensor:
    """Return the places of a byte's bits, the highest first: (8,) uint8."""
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)


@dataclass(frozen=True, eq=False)
class SignSgd(FeedbackCodec):
    """Send only the sign of each entry of an update, and one scale per tensor.

    With error feedback it is EF-signSGD. The signs of a tensor that did not change have scale 0.
    """

    feedback: Annotated[
        bool, Field(description="add what an update lost to the client's next one (error feedback)")
    ] = False
    scale: Annotated[
        Literal["mean", "one"],
        Field(description="what a sign stands for: the tensor's mean magnitude, or 1 for a vote"),
    ] = "mean"

    def __post_init__(self) -> None:
        if self.feedback and self.scale == "one":
            raise ValueError("feedback needs scale: mean, as what 1 loses of an update can grow")

    def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor]:
        """Return the packed signs and the scale."""
        signs, mean = encode(values)
        return {"signs": signs, "scale": mean if self.scale == "mean" else mean.sign()}

    def decode(self, parts: Mapping[str, Tensor], slot: Slot) -> Tensor:
        """Return plus or minus the scale for each entry."""
        return decode(parts["signs"], parts["scale"], math.prod(slot.shape))


@dataclass(frozen=True, eq=False)
class SignMajority:
    """Move each parameter by ``lr`` in the direction in which most clients moved it; ties stay.

    Bernstein et al., signSGD with majority vote, ICLR 2019; with ``signsgd``, clients send one bit
    per parameter. Buffers are averaged as in FedAvg.
    """

    roles: ClassVar[tuple[str, ...]] = (ROBUST,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_MEAN

    lr: Annotated[float, Field(gt=0, description="server learning rate: how far a vote moves")] = (
        0.001
    )

    @hookimpl
    def aggregate(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Weights:
        trained = {name for name, _ in ctx.model.named_parameters()}
        votes: dict[str, Tensor] = {}

        def others() -> Iterator[tuple[Weights, float]]:
            for result in results:
                new, sent = result.uploads.weights(), result.sent.weights()
                moved = difference({k: w for k, w in new.items() if k in trained}, sent)
                for name, update in moved.items():
                    votes[name] = votes.get(name, 0) + update.sign()
                yield {k: w for k, w in new.items() if k not in trained}, result.examples

        buffers = weighted_mean(others())
        moved = {name: state.weights[name] + self.lr * v.sign() for name, v in votes.items()}
        return {**buffers, **{name: w.to(state.weights[name].dtype) for name, w in moved.items()}}
