"""Numbers about features and class anchors: pure functions, for diagnostics.

Anchors are any number of rows (d,) per class (`PerClass`). Where a class needs one direction, it is
the mean of its unit rows. Functions of features compute in their type; pass float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench import PerClass


def directions(anchors: PerClass) -> PerClass:
    """Return one unit row per class: the direction of the mean of its unit rows."""
    means = PerClass(anchors.labels, F.normalize(anchors.values, dim=1), anchors.counts).average()
    return PerClass(means.labels, F.normalize(means.values, dim=1), means.counts)


def consistency(features: Tensor, labels: Tensor, anchors: PerClass) -> PerClass:
    """Return ``cos(a_c, m_c)`` of each class's anchor direction and mean feature.

    Args:
        features: (n, d).
        labels: (n,) int64.
        anchors: rows (d,).

    Returns:
        a number per class that has both examples and an anchor, values (m,).
    """
    own, wanted = PerClass.means(features, labels), directions(anchors)
    same = own.labels[:, None] == wanted.labels[None, :]
    known = same.any(dim=1)
    targets = wanted.values[same.int().argmax(dim=1)]
    cosines = F.cosine_similarity(own.values, targets, dim=1)
    return PerClass(own.labels[known], cosines[known], own.counts[known])


def spread(values: Tensor, classes: Tensor, groups: Tensor) -> float | None:
    """Return the standard deviation over groups within a class, averaged over classes.

    The values of one class and group are averaged first. A class in one group does not count.

    Args:
        values: (n,).
        classes: (n,) int64.
        groups: (n,) int64, such as clients or domains.

    Returns:
        the mean of the classes' population standard deviations; ``None`` without such a class.
    """
    cells, index = torch.unique(torch.stack([classes, groups]), dim=1, return_inverse=True)
    means = PerClass.means(values, index).values
    own = [means[cells[0] == c] for c in cells[0].unique()]
    several = [one.std(correction=0) for one in own if len(one) > 1]
    return float(torch.stack(several).mean()) if several else None


def separation(anchors: PerClass) -> tuple[float, float] | None:
    """Return the mean and the maximum cosine of two anchors of different classes; lower is better.

    Returns:
        ``None`` when fewer than two classes have anchors.
    """
    unit = F.normalize(anchors.values, dim=1)
    different = anchors.labels[:, None] != anchors.labels[None, :]
    cosines = (unit @ unit.T)[different]
    return (float(cosines.mean()), float(cosines.max())) if len(cosines) else None


def similarity(anchors: PerClass) -> tuple[Tensor, Tensor]:
    """Return the classes (m,) that have anchors, and the cosines (m, m) of their directions."""
    found = directions(anchors)
    return found.labels, found.values @ found.values.T


def uniformity(features: Tensor, t: float = 2.0) -> float | None:
    """Return ``log mean_{i<j} exp(-t |x_i - x_j|^2)`` of unit features; lower is more uniform.

    Wang and Isola: Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere, ICML 2020. It is at most 0, which means that all features have
    the same direction.

    Args:
        features: (n, d).
        t: > 0; 2 in the paper.

    Returns:
        ``None`` for fewer than two features.
    """
    if len(features) < 2:
        return None
    squares = torch.pdist(F.normalize(features, dim=1)).square()
    return float((-t * squares).exp().mean().log())


def effective_rank(matrix: Tensor) -> float:
    """Return ``exp(-sum_i p_i log p_i)``, where p are the singular values divided by their sum.

    Roy and Vetterli: The Effective Rank: A Measure of Effective Dimensionality, EUSIPCO 2007. It
    lies between 1 and the rank, and is 0 for a zero matrix.

    Args:
        matrix: (n, d).
    """
    values = torch.linalg.svdvals(matrix)
    if not values.any():
        return 0.0
    p = values / values.sum()
    return float((-torch.special.xlogy(p, p)).sum().exp())


def unit_gram(features: Tensor) -> Tensor:
    """Return the Gram matrix (n, n) of centred features, divided by its Frobenius norm.

    The inner product of two models' matrices for the same examples is their linear CKA, see
    `linear_cka`. It is 0 for features that are all equal.

    Args:
        features: (n, d).
    """
    centred = features - features.mean(dim=0)
    gram = centred @ centred.T
    return F.normalize(gram.flatten(), dim=0).reshape(gram.shape)


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Return the linear CKA of two models' features: ``|Y'X|^2 / (|X'X| |Y'Y|)`` after centring.

    Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited, ICML
    2019. Norms are Frobenius norms. It lies in [0, 1], and is 1 for features that differ by a
    rotation and a factor.

    Args:
        x: (n, d), one model's features of n examples.
        y: (n, e), another's of the same examples.
    """
    return float((unit_gram(x) * unit_gram(y)).sum())


def mean_cka(grams: Tensor) -> float | None:
    """Return the mean linear CKA over all pairs of models, from the sum of their Gram matrices.

    With unit Gram matrices G_k it is ``(|sum_k G_k|^2 - sum_k |G_k|^2) / (K (K - 1))``.

    Args:
        grams: (K, n, n), each from `unit_gram` of the same examples.

    Returns:
        ``None`` for one model.
    """
    k = len(grams)
    if k < 2:
        return None
    return float((grams.sum(0).square().sum() - grams.square().sum()) / (k * (k - 1)))


def relative_change(before: PerClass, after: PerClass) -> float | None:
    """Return ``mean_c |a_c - b_c| / |b_c|`` over the classes that both have.

    b_c and a_c are the plain means of a class's rows before and after; a class with b_c = 0 does
    not count.

    Returns:
        ``None`` when they share no class.
    """
    old, new = before.average(), after.average()
    b = old.values[torch.isin(old.labels, new.labels)]
    a = new.values[torch.isin(new.labels, old.labels)]
    lengths, moved = b.norm(dim=1), (a - b).norm(dim=1)
    known = lengths > 0
    return float((moved[known] / lengths[known]).mean()) if known.any() else None


def classifier_gradients(rows: PerClass, weight: Tensor, bias: Tensor) -> PerClass:
    """Return the classifier's gradient for each class: that of the mean cross-entropy of its rows.

    Args:
        rows: features or anchors (d,), any number per class.
        weight: W, (C, d).
        bias: b, (C,).

    Returns:
        a row (C (d + 1),) per class present: ``mean_i (softmax(W z_i + b) - onehot(c)) [z_i, 1]'``.
    """
    z = rows.values
    errors = F.softmax(F.linear(z, weight, bias), dim=1) - F.one_hot(rows.labels, len(bias))
    extended = torch.cat([z, z.new_ones(len(z), 1)], dim=1)
    found = []
    for label in rows.labels.unique():
        own = rows.labels == label
        found.append((errors[own].T @ extended[own]).flatten() / own.sum())
    counts = PerClass.means(rows.values, rows.labels)
    return PerClass(counts.labels, torch.stack(found), counts.counts)


def gradient_agreement(
    features: Tensor, labels: Tensor, anchors: PerClass, weight: Tensor, bias: Tensor
) -> PerClass:
    """Return the cosine of the classifier gradients that anchors and samples of a class induce.

    See `classifier_gradients`. 1 means that a step on the anchors moves the classifier as a step on
    the samples does.

    Args:
        features: (n, d).
        labels: (n,) int64.
        anchors: rows (d,).
        weight: (C, d), the classifier's weight.
        bias: (C,), its bias.

    Returns:
        a number per class that has both samples and anchors, values (m,).
    """
    samples = PerClass(labels, features, torch.ones_like(labels))
    shared = [torch.isin(a.labels, b.labels) for a, b in ((samples, anchors), (anchors, samples))]
    chosen = [
        PerClass(rows.labels[mask], rows.values[mask], rows.counts[mask])
        for rows, mask in zip((samples, anchors), shared, strict=True)
    ]
    if not len(chosen[0]):
        return PerClass(labels[:0], features.new_empty(0), labels[:0])
    of_samples, of_anchors = (classifier_gradients(rows, weight, bias) for rows in chosen)
    cosines = F.cosine_similarity(of_samples.values, of_anchors.values, dim=1)
    return PerClass(of_samples.labels, cosines, of_samples.counts)


def nearest_is_own(features: Tensor, labels: Tensor, anchors: PerClass) -> Tensor:
    """Return whether the anchor of highest cosine is one of the example's class, (n,) bool.

    Args:
        features: (n, d).
        labels: (n,) int64; an example whose class has no anchor counts as wrong.
        anchors: rows (d,).
    """
    scores = F.normalize(features, dim=1) @ F.normalize(anchors.values, dim=1).T
    return anchors.labels[scores.argmax(dim=1)] == labels


def plane(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (d,) and the two principal axes (2, d) of points, for a picture.

    The largest component of each axis is positive, so that the picture does not depend on how the
    singular vectors' signs come out. One point alone has no second axis: it is 0.

    Args:
        points: (n, d).
    """
    mean = points.mean(dim=0)
    axes = torch.linalg.svd(points - mean, full_matrices=False).Vh[:2]
    signs = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return mean, F.pad(axes * signs, (0, 0, 0, 2 - len(axes)))
