"""CCVR: after training, calibrate the classifier on virtual features drawn per class.

Luo, Chen, Hu, Zhang, Liang, Feng: No Fear of Heterogeneity: Classifier Calibration for Federated
Learning with Non-IID Data, NeurIPS 2021.

Clients send count, mean and covariance of each class's features under the final extractor; the
server pools them to the statistics of all features together and draws from one Gaussian per class.
The pooled covariance is exact only if the clients' are unbiased (divided by n - 1): some public
code pools population covariances by this formula. No code by the authors was found, and the paper's
text was not re-read.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pooled_statistics(
    counts: Tensor, means: Tensor, covariances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each class's count (C,), mean (C, d) and unbiased covariance (C, d, d) over clients.

    They are those of all features together, up to rounding. A class with one example in all has
    covariance 0; a class that nobody holds has count, mean and covariance 0.

    Args:
        counts: n_kc, (K, C), examples per client and class.
        means: (K, C, d), finite also where the count is 0.
        covariances: (K, C, d, d), unbiased; ignored where the count is below 2, but finite.
    """
    n = counts.double()
    total = n.sum(dim=0)
    mean = torch.einsum("kc,kci->ci", n, means.double()) / total.clamp(min=1)[:, None]
    # From centred differences: the difference of two large sums of squares would cancel.
    centred = n.sqrt()[:, :, None] * (means.double() - mean)
    between = torch.einsum("kci,kcj->cij", centred, centred)
    within = torch.einsum("kc,kcij->cij", (n - 1).clamp(min=0), covariances.double())
    covariance = (within + between) / (total - 1).clamp(min=1)[:, None, None]
    return total.to(counts.dtype), mean.to(means.dtype), covariance.to(covariances.dtype)


def virtual_features(
    counts: Tensor, means: Tensor, covariances: Tensor, per_class: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return virtual features (n, d) and their labels (n,) int64, class after class.

    Each class that somebody holds gets ``per_class`` features from ``N(mean, covariance)``. The
    covariance may lack full rank: features then differ from the mean only within its range.

    Args:
        counts: (C,), examples per class; classes with 0 are left out.
        means: (C, d).
        covariances: (C, d, d), symmetric; eigenvalues below rounding error, or negative because of
            it, count as 0.
        per_class: M, at least 1.
        generator: source of the draws, on the CPU, like all tensors; a class's draws do not depend
            on which other classes are held.
    """
    classes, d = means.shape
    noise = torch.randn(classes, per_class, d, generator=generator, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariances.double())
    floor = values.amax(dim=1, keepdim=True) * d * torch.finfo(covariances.dtype).eps
    scales = torch.where(values > floor, values, 0.0).sqrt()
    # The symmetric root, because the eigenvectors' signs differ between machines.
    root = (vectors * scales[:, None, :]) @ vectors.mT
    features = (means.double()[:, None, :] + noise @ root).to(means.dtype)
    held = (counts > 0).nonzero().flatten()
    return features[held].flatten(0, 1), held.repeat_interleave(per_class)
