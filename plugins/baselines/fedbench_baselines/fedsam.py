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

from collections.abc import Sequence

import torch
from torch import Tensor


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
