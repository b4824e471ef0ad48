"""FedSAM and FedASAM: clients look for flat minima by sharpness-aware local steps.

Caldarola, Caputo, Ciccone: Improving Generalization in Federated Learning by Seeking Flat Minima,
ECCV 2022; Qu, Li, Duan, Liu, Tang, Lu: Generalized Federated Learning via Sharpness Aware
Minimization, ICML 2022.

A local step takes the gradient at ``w + e`` on the same batch and applies it at ``w``. From the
released code: the norm is over all parameters together, and the adaptive form scales parameters
whose name has "weight". Weight decay enters neither gradient of the ascent. The papers' texts were
not re-read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedbench import Batch, ClientContext, Search, hookimpl

ANEW = "gradient anew"
"""The role of plugins that replace the gradient of a step, and with it what others added to it."""

ONE_GRADIENT: Mapping[str, str] = {ANEW: "each takes the gradient of a step anew"}
"""What they state as ``conflicts``."""


def perturbation(params: Sequence[Tensor], gradients: Sequence[Tensor], rho: float) -> list[Tensor]:
    """Return SAM's ascent ``e = rho * g / ||g||`` for each parameter; zero for a zero gradient.

    Args:
        params: the trainable parameters w; only their number counts.
        gradients: g, in the same order.
        rho: the length of ``e`` over all parameters together.
    """
    return adaptive_perturbation(params, gradients, [False] * len(params), rho, 0.0)


def adaptive_perturbation(
    params: Sequence[Tensor],
    gradients: Sequence[Tensor],
    scaled: Sequence[bool],
    rho: float,
    eta: float,
) -> list[Tensor]:
    """Return ASAM's ascent ``e = rho * T^2 g / ||T g||``; zero for a zero gradient.

    Args:
        params: the trainable parameters w.
        gradients: g, in the same order.
        scaled: for each parameter, whether ``T = |w| + eta``; otherwise ``T`` is 1.
        rho: the length of ``T^-1 e`` over all parameters together.
        eta: keeps T away from 0.
    """
    with torch.no_grad():
        both = zip(params, scaled, strict=True)
        scales = [w.abs() + eta if s else w.new_ones(()) for w, s in both]
        ascent = [t * g for t, g in zip(scales, gradients, strict=True)]
        norm = torch.stack([torch.linalg.vector_norm(a) for a in ascent]).norm()
        # Not a branch on the norm, because a GPU would wait for the host.
        factor = torch.where(norm > 0, rho / norm, 0.0)
        return [factor * t * a for t, a in zip(scales, ascent, strict=True)]


def sharpen(
    ctx: ClientContext, batch: Batch, rho: float, eta: float | None, freeze_statistics: bool
) -> None:
    """Replace the gradients of ``ctx.model`` by those at the perturbed weights, on the same batch.

    Args:
        ctx: the client's turn, with gradients of ``batch``.
        batch: the batch.
        rho: length of the perturbation.
        eta: of the adaptive form, `None` for SAM's own.
        freeze_statistics: whether the second pass leaves batch-norm statistics as they are.
    """
    named = [(n, p) for n, p in ctx.model.named_parameters() if p.grad is not None]
    params = [p for _, p in named]
    gradients = [p.grad for p in params if p.grad is not None]
    scaled = [eta is not None and "weight" in name for name, _ in named]
    ascent = adaptive_perturbation(params, gradients, scaled, rho, eta or 0.0)
    before = [p.detach().clone() for p in params]
    buffers = [(b, b.clone()) for b in ctx.model.buffers()] if freeze_statistics else []
    with torch.no_grad():
        for parameter, e in zip(params, ascent, strict=True):
            parameter.add_(e)
            parameter.grad = None
    loss = ctx.loss(batch, record=False)
    with ctx.phase("backward"):
        loss.backward()
    with torch.no_grad():
        for parameter, w in zip(params, before, strict=True):
            parameter.copy_(w)
        for buffer, value in buffers:
            buffer.copy_(value)


@dataclass(frozen=True, eq=False)
class FedSam:
    """Take every local step with the gradient at the worst nearby weights."""

    roles: ClassVar[tuple[str, ...]] = (ANEW,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_GRADIENT

    rho: Annotated[
        float,
        Field(gt=0, description="length of the perturbation"),
        Search(low=0.01, high=0.5, scale="log"),
    ] = 0.1
    freeze_statistics: Annotated[
        bool, Field(description="whether the second pass leaves batch-norm statistics alone")
    ] = False

    @hookimpl
    def after_backward(self, ctx: ClientContext, batch: Batch) -> None:
        sharpen(ctx, batch, self.rho, None, self.freeze_statistics)


@dataclass(frozen=True, eq=False)
class FedAsam:
    """FedSAM with perturbations in proportion to the weights."""

    roles: ClassVar[tuple[str, ...]] = (ANEW,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_GRADIENT

    rho: Annotated[
        float,
        Field(gt=0, description="length of the scaled perturbation"),
        Search(low=0.05, high=2, scale="log"),
    ] = 0.7
    eta: Annotated[float, Field(gt=0, description="added to the weights' sizes")] = 0.2
    freeze_statistics: Annotated[
        bool, Field(description="whether the second pass leaves batch-norm statistics alone")
    ] = False

    @hookimpl
    def after_backward(self, ctx: ClientContext, batch: Batch) -> None:
        sharpen(ctx, batch, self.rho, self.eta, self.freeze_statistics)
