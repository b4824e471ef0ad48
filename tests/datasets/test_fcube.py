"""NIID-Bench's FCUBE: points in a cube, two classes, and clients with two opposite octants."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from fedbench_datasets.fcube import Fcube, of_points
from fedbench_datasets.partitions import Domains

from fedbench.store.fingerprint import of_data

NOWHERE = Path("nowhere")


def octants(inputs: torch.Tensor) -> Counter[str]:
    """Count points by the signs of their coordinates."""
    return Counter("".join("+" if x > 0 else "-" for x in point) for point in inputs.tolist())


def test_a_point_and_its_opposite_are_of_one_domain_and_of_two_classes() -> None:
    corners = np.array([[x, y, z] for x in (1, -1) for y in (1, -1) for z in (1, -1)], dtype=float)
    found = of_points(corners * 0.5)
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert found.domains.tolist() == [0, 1, 2, 3, 3, 2, 1, 0]


def test_every_client_has_500_points_in_each_of_two_opposite_octants() -> None:
    data = Fcube().load(NOWHERE)
    parts = Domains(clients_per_domain=1).partition(data=data, rng=np.random.default_rng(0))
    for name, part in zip(data.domains, parts, strict=True):
        assert octants(data.train.inputs[part]) == dict.fromkeys(name.split(), 500)
        assert data.train.labels[part].bincount().tolist() == [500, 500]


def test_the_points_are_uniform_and_labelled_by_the_first_coordinate() -> None:
    data = Fcube().load(NOWHERE)
    assert (len(data.train), len(data.test)) == (4000, 1000)
    for part in (data.train, data.test):
        assert part.inputs.dtype == torch.float32
        assert torch.equal(part.labels, (part.inputs[:, 0] <= 0).long())
        # A uniform number from 0 to 1 has the mean 1/2 and the variance 1/12.
        sizes = part.inputs.abs().double()
        assert float(sizes.max()) <= 1
        assert sizes.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.03)
        assert sizes.var(0).tolist() == pytest.approx([1 / 12] * 3, rel=0.1)
    assert all(90 < count < 160 for count in octants(data.test.inputs).values())


def test_the_same_seed_gives_the_same_data_and_others_give_others() -> None:
    first = of_data(Fcube().load(NOWHERE))
    assert of_data(Fcube().load(NOWHERE)) == first
    assert of_data(Fcube(seed=1).load(NOWHERE)) != first
