"""FedTGP's network: drawn as torch's layers are, trained as autograd and torch's SGD would."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.fedtgp import adaptive_margin, center_loss
from fedbench_baselines.tgp import centers, initial_network, train_network
from torch import nn

from fedbench import PerClass


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def rows(labels: list[int], values: torch.Tensor) -> PerClass:
    return PerClass(torch.tensor(labels), values, torch.ones(len(labels)).long())


def modules(network) -> nn.Module:
    """Return the network as torch's own modules."""
    d = network["embedding"].shape[1]
    model = nn.Module()
    model.embedding = nn.Parameter(network["embedding"].clone())
    model.hidden = nn.Linear(d, d).to(network["embedding"].dtype)
    model.output = nn.Linear(d, d).to(network["embedding"].dtype)
    model.load_state_dict(dict(network))
    return model


def apply(model: nn.Module) -> torch.Tensor:
    return model.output(torch.relu(model.hidden(model.embedding)))


def test_a_new_network_is_drawn_as_torchs_layers_are_and_seeded():
    network = initial_network(4, 9, generator())
    assert [tuple(w.shape) for w in network.values()] == [(4, 9), (9, 9), (9,), (9, 9), (9,)]
    assert all(float(w.abs().max()) <= 1 / 3 for name, w in network.items() if name != "embedding")
    again, other = initial_network(4, 9, generator()), initial_network(4, 9, generator(1))
    assert all(torch.equal(network[name], again[name]) for name in network)
    assert not torch.equal(network["embedding"], other["embedding"])


def test_global_prototypes_are_those_of_torchs_modules():
    network = initial_network(4, 5, generator())
    torch.testing.assert_close(centers(network), apply(modules(network)).detach())


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_training_is_autograd_and_torchs_sgd(batch_size):
    """Class 3 of five has no prototype; its centre moves as it is pushed away."""
    start = {name: w.double() for name, w in initial_network(5, 6, generator()).items()}
    labels = [0, 1, 2, 4, 0, 1, 2, 4, 0]
    prototypes = rows(labels, draw(9, 6, seed=1))
    found = train_network(start, prototypes, 20, batch_size, 0.05, 1.5, generator(7))

    model, stream = modules(start), generator(7)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        for at in torch.randperm(9, generator=stream).split(batch_size):
            sgd.zero_grad()
            loss = center_loss(prototypes.values[at], prototypes.labels[at], apply(model), 1.5)
            loss.backward()
            sgd.step()
    for name, w in model.state_dict().items():
        torch.testing.assert_close(found[name], w)
        assert not torch.equal(found[name], start[name])


def test_names_not_their_order_decide_and_the_given_network_is_left_alone():
    start = initial_network(3, 4, generator())
    before = {name: w.clone() for name, w in start.items()}
    prototypes = rows([0, 1, 2], torch.randn(3, 4, generator=generator(1)))
    found = train_network(start, prototypes, 3, 2, 0.1, 1.0, generator(2))
    turned = {name: start[name] for name in sorted(start, reverse=True)}
    again = train_network(turned, prototypes, 3, 2, 0.1, 1.0, generator(2))
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert all(torch.equal(start[name], before[name]) for name in start)
    assert all(w.dtype == torch.float32 for w in found.values())


def test_a_prototype_that_is_met_exactly_keeps_training_finite():
    network = initial_network(2, 4, generator())
    prototypes = rows([0, 1], centers(network))
    found = train_network(network, prototypes, 2, 2, 0.1, 1.0, generator())
    assert all(torch.isfinite(w).all() for w in found.values())


def test_training_separates_the_classes():
    """Ten clients' noisy rows of four classes end up nearest to their own global prototype."""
    network = initial_network(4, 16, generator())
    labels = list(range(4)) * 10
    values = (draw(4, 16, seed=2)[labels] + 0.3 * draw(40, 16, seed=3)).float()
    prototypes = rows(labels, values)
    margin = adaptive_margin(prototypes, 100.0, "max_min")
    trained = centers(train_network(network, prototypes, 100, 32, 0.05, margin, generator()))
    nearest = torch.cdist(values, trained).argmin(dim=1)
    assert nearest.tolist() == labels
