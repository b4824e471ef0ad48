"""FedGH: the shared head's training is torch's own SGD on the pairs (mean, class)."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.fedgh import train_head
from torch.nn import functional as F

from fedbench import PerClass


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def rows(labels: list[int], values: torch.Tensor) -> PerClass:
    return PerClass(torch.tensor(labels), values, torch.ones(len(labels)).long())


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_training_is_autograd_and_torchs_sgd(batch_size):
    prototypes = rows([0, 2, 2, 0, 3, 3, 2], draw(7, 5))
    head = torch.nn.Linear(5, 4).double()
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    found = train_head(weight, bias, prototypes, 6, batch_size, 0.3, generator(4))

    sgd, stream = torch.optim.SGD(head.parameters(), lr=0.3), generator(4)
    for _ in range(6):
        for at in torch.randperm(7, generator=stream).split(batch_size):
            sgd.zero_grad()
            F.cross_entropy(head(prototypes.values[at]), prototypes.labels[at]).backward()
            sgd.step()
    torch.testing.assert_close(found, (head.weight.detach(), head.bias.detach()))
    assert not torch.equal(found[0], weight)


def test_one_step_by_hand():
    """At zero, two classes have probability 1/2: the row of class 1 moves by z / 2."""
    prototypes = rows([1], torch.tensor([[2.0, 4.0]]))
    weight, bias = torch.zeros(2, 2), torch.zeros(2)
    new, shift = train_head(weight, bias, prototypes, 1, 8, 1.0, generator())
    assert new.tolist() == [[-1, -2], [1, 2]]
    assert shift.tolist() == [-0.5, 0.5]
    assert weight.tolist() == [[0, 0], [0, 0]]
    assert bias.tolist() == [0, 0]


def test_no_epoch_changes_nothing_and_a_head_in_training_is_left_alone():
    head = torch.nn.Linear(2, 3)
    prototypes = rows([0, 1], torch.eye(2))
    weight, bias = train_head(head.weight, head.bias, prototypes, 0, 1, 1.0, generator())
    assert torch.equal(weight, head.weight)
    assert torch.equal(bias, head.bias)
    assert not weight.requires_grad
    before = head.weight.detach().clone()
    train_head(head.weight, head.bias, prototypes, 3, 1, 1.0, generator())
    assert torch.equal(head.weight, before)


def test_a_trained_head_classifies_the_means():
    labels = [0, 1, 2] * 4
    values = torch.eye(3)[labels] + 0.1 * draw(12, 3).float()
    weight, bias = train_head(
        torch.zeros(3, 3), torch.zeros(3), rows(labels, values), 50, 4, 0.5, generator()
    )
    assert (values @ weight.T + bias).argmax(dim=1).tolist() == labels
