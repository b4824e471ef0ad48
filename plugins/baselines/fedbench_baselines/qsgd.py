"""QSGD: entries rounded at random to a few levels, so that the result is unbiased.

Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD: Communication-Efficient SGD via Gradient Quantization
and Encoding, NeurIPS 2017. The paper was not re-read.

With 127 levels, a tensor of n entries takes n + 4 bytes. The scale is the 2-norm in the paper, as
remembered. Most codes of a large tensor are then 0; with 8 bits the largest magnitude, as used in
practice, is the better scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedbench import ClientContext, ConfigError
from fedbench.codec import Codec, Slot


def quantize(
    values: Tensor, levels: int, draws: Tensor, norm: Literal["l2", "max"]
) -> tuple[Tensor, Tensor]:
    """Return ``sign(x) * floor(|x| / scale * levels + u)`` and the scale.

    The expected value of ``code * scale / levels`` over the draws is x. All-zero values have scale
    0 and codes 0.

    Args:
        values: x, (n,) floating-point, n >= 1.
        levels: s, from 1 to 127.
        draws: u, (n,), uniform in [0, 1).
        norm: whether the scale is the 2-norm or the largest magnitude.

    Returns:
        codes (n,) int8 from ``-levels`` to ``levels``, and the scale (), of the type of ``values``.

    Raises:
        ConfigError: when a code would not fit into int8.
    """
    if not 1 <= levels <= 127:
        raise ConfigError(f"qsgd: levels = {levels} must be from 1 to 127, so a code fits a byte")
    wide = values.double()
    order = 2 if norm == "l2" else torch.inf
    scale = torch.linalg.vector_norm(wide, ord=order).to(values.dtype)
    shares = wide.abs() / torch.where(scale > 0, scale, 1).double()
    # The sum of `levels` and a draw just below 1 may be rounded up to the next integer.
    codes = (shares * levels + draws.double()).floor().clamp(max=levels)
    return (wide.sign() * codes).to(torch.int8), scale


def dequantize(codes: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Return ``code * scale / levels``, (n,), of the type of ``scale``.

    Args:
        codes: (n,) int8, from `quantize`.
        scale: (), from `quantize`.
        levels: s, as given to `quantize`.
    """
    return (codes.double() * scale.double() / levels).to(scale.dtype)


@dataclass(frozen=True, eq=False)
class Qsgd(Codec):
    """Round each entry of an update at random to one of a few levels, which takes one byte.

    A tensor of n entries takes n + 4 bytes.
    """

    levels: Annotated[
        int, Field(ge=1, le=127, description="levels between 0 and the scale; 127 fill a byte")
    ] = 127
    norm: Annotated[
        Literal["max", "l2"],
        Field(description="a tensor's scale: its largest magnitude, or its 2-norm as in the paper"),
    ] = "max"

    def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor]:
        """Return the codes and the scale."""
        draws = torch.rand(len(values), generator=ctx.rng(f"qsgd/{slot.label}"))
        codes, scale = quantize(values, self.levels, draws, self.norm)
        return {"codes": codes, "scale": scale}

    def decode(self, parts: Mapping[str, Tensor], slot: Slot) -> Tensor:
        """Return the vector of the codes."""
        return dequantize(parts["codes"], parts["scale"], self.levels)
