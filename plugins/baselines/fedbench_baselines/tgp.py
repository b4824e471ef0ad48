"""The network of `.fedtgp` whose outputs are the global prototypes, and its training.

As in the released code it is an embedding per class, a linear layer, ReLU and a linear layer, all
trained by plain SGD and kept from round to round.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench import PerClass, Weights


def initial_network(num_classes: int, d: int, generator: torch.Generator) -> Weights:
    """Return a new network from classes to prototypes, drawn as torch's layers are.

    Returns:
        ``embedding`` (C, d); ``hidden.weight`` and ``output.weight`` (d, d); ``hidden.bias`` and
        ``output.bias`` (d,).
    """
    network = {"embedding": torch.randn(num_classes, d, generator=generator)}
    bound = d**-0.5
    for layer in ("hidden", "output"):
        for name, shape in (("weight", (d, d)), ("bias", (d,))):
            draws = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            network[f"{layer}.{name}"] = draws
    return network


def centers(network: Weights) -> Tensor:
    """Return the global prototypes (C, d): embedding, linear layer, ReLU, linear layer."""
    hidden = F.linear(network["embedding"], network["hidden.weight"], network["hidden.bias"])
    return F.linear(hidden.relu(), network["output.weight"], network["output.bias"])


def train_network(
    network: Weights,
    prototypes: PerClass,
    epochs: int,
    batch_size: int,
    lr: float,
    margin: float,
    generator: torch.Generator,
) -> Weights:
    """Return the network after plain SGD on `.fedtgp.center_loss`, in shuffled batches.

    The gradient is in closed form: with autograd, training would take three times as long.

    Args:
        network: see `initial_network`; all on the CPU.
        prototypes: the clients' rows (d,), any number per class, at least one in all.
        epochs: passes over all rows.
        batch_size: rows per step; the last step of an epoch may have fewer.
        lr: learning rate.
        margin: as in that loss.
        generator: source of the batches' order.
    """
    new = {name: w.detach().clone() for name, w in network.items()}
    values = prototypes.values.to(new["embedding"].dtype)
    own = F.one_hot(prototypes.labels, len(new["embedding"])).to(values.dtype)
    with torch.no_grad():
        for _ in range(epochs):
            order = torch.randperm(len(values), generator=generator)
            batches = (part[order].split(batch_size) for part in (values, own))
            for points, onehot in zip(*batches, strict=True):
                _step(new, points, onehot, lr, margin)
    return new


def _step(network: Weights, points: Tensor, onehot: Tensor, lr: float, margin: float) -> None:
    """Take one step of SGD on a batch, points (B, d) and classes (B, C); write to ``network``."""
    e, w1, w2 = (network[name] for name in ("embedding", "hidden.weight", "output.weight"))
    hidden = F.linear(e, w1, network["hidden.bias"]).relu_()
    centers = F.linear(hidden, w2, network["output.bias"])
    # Twice as fast as `cdist` at these sizes, and as exact near 0.
    distances = torch.linalg.vector_norm(points[:, None] - centers, dim=2)
    probabilities = torch.softmax(-(distances + margin * onehot), dim=1)
    pulls = (onehot - probabilities) / (distances * len(points))
    pulls = torch.where(distances > 0, pulls, 0.0)  # as autograd's, where both are equal
    d_centers = pulls.sum(dim=0)[:, None] * centers - pulls.T @ points
    d_hidden = (d_centers @ w2).mul_(hidden > 0)
    d_e = d_hidden @ w1
    w2.addmm_(d_centers.T, hidden, alpha=-lr)
    w1.addmm_(d_hidden.T, e, alpha=-lr)
    network["output.bias"].sub_(d_centers.sum(dim=0), alpha=lr)
    network["hidden.bias"].sub_(d_hidden.sum(dim=0), alpha=lr)
    e.sub_(d_e, alpha=lr)
