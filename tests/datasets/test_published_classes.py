"""Classes per client as NIID-Bench's code draws them, and as a list."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from fedbench_datasets.partitions import ClassesPerClient

from fedbench.errors import ConfigError
from fedbench.plugins.discovery import discover
from fedbench.study import reproductions
from fedbench.types import Dataset, Examples


def data(counts):
    """Return ``counts[c]`` training examples of class c; the inputs do not matter."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    train = Examples(torch.zeros(len(labels), 1), labels, torch.zeros_like(labels))
    return Dataset(tuple(f"c{i}" for i in range(len(counts))), ("all",), train, train)


def drawn(plugin, of, seed=0):
    """Return (clients, classes) how many examples of each class each client has."""
    parts = plugin.partition(data=of, rng=np.random.default_rng(seed))
    return torch.stack(
        [of.train.labels[part].bincount(minlength=len(of.classes)) for part in parts]
    )


def test_a_client_gets_its_own_class_and_random_others():
    of = data([840] * 4)  # divisible by any number of holders up to 8
    plugin = ClassesPerClient(8, 2, form="published")
    counts = torch.stack([drawn(plugin, of, seed) for seed in range(40)])
    held = counts > 0
    assert (held.sum(2) == 2).all()
    assert held[:, torch.arange(8), torch.arange(8) % 4].all()
    assert held.any(0).all()  # any class may be the other one
    holders = held.sum(1, keepdim=True)
    assert torch.equal(counts, held * (840 // holders))
    assert holders.min() < 4 < holders.max()


def test_a_class_without_examples_is_skipped():
    counts = drawn(ClassesPerClient(3, 2, form="published"), data([60, 0, 60, 60]))
    assert counts.sum(0).tolist() == [60, 0, 60, 60]
    assert (counts[torch.arange(3), torch.tensor([0, 2, 3])] > 0).all()


def test_fewer_clients_than_classes_are_refused():
    plugin = ClassesPerClient(4, 2, form="published")
    message = (
        "classes_per_client.form: with form: published, 4 clients may leave some of the 5 classes "
        "to nobody; use clients: 5 or form: balanced"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        plugin.partition(data=data([20] * 5), rng=np.random.default_rng())


def test_listed_classes_are_divided_evenly_among_their_holders():
    plugin = ClassesPerClient(3, [[0, 2], [2], [2, 1]])
    counts = drawn(plugin, data([60, 60, 60]))
    assert counts.tolist() == [[60, 0, 20], [0, 0, 20], [0, 60, 20]]


@pytest.mark.parametrize(
    ("classes", "error"),
    [
        ([[0, 1], [2]], "2 lists; use clients: 2"),
        ([[0, 1], [2], []], "client 2 needs one class or more, each once; not []"),
        ([[0, 1], [2, 2], [1]], "client 1 needs one class or more, each once; not [2, 2]"),
        ([[0, 1], [2], [4]], "class 4 has no training example"),
        ([[0, 1], [1], [1]], "class 2 has no client"),
    ],
)
def test_a_list_that_cannot_be_is_refused(classes, error) -> None:
    message = re.escape(f"classes_per_client.classes: {error}")
    with pytest.raises(ConfigError, match=f"^{message}$"):
        ClassesPerClient(3, classes).partition(
            data=data([20, 20, 20, 0]), rng=np.random.default_rng()
        )


def test_a_list_leaves_nothing_to_draw() -> None:
    plugin = ClassesPerClient(2, [[0], [1]], form="published")
    with pytest.raises(ConfigError, match="a list leaves nothing to draw; leave out form: publ"):
        plugin.partition(data=data([20, 20]), rng=np.random.default_rng())


@pytest.mark.parametrize(("labels", "cell"), [(2, "2-labels"), (3, "3-labels")])
@pytest.mark.parametrize("name", ["niid-bench-fashion-mnist", "niid-bench-mnist"])
def test_the_reproductions_list_what_the_source_draws_with_seed_42(name, cell, labels) -> None:
    _, parts = reproductions.load(discover(), name)
    (grid,) = [part.grid for part in parts if part.name == cell]
    listed = grid.partitions[0]["classes_per_client"]["classes"]
    rng = np.random.default_rng(42)
    for client, classes in enumerate(listed):
        drawn = [client]
        while len(drawn) < labels:
            other = int(rng.choice(10, 1)[0])
            if other not in drawn:
                drawn.append(other)
        assert classes == drawn
