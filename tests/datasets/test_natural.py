"""The natural partition: the data set's own clients, which data that are changed or cached keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fedbench_datasets import caching
from fedbench_datasets.caching import Source, Writer
from fedbench_datasets.modifiers import FeatureNoise, LabelNoise, LongTail
from fedbench_datasets.natural import Natural

from fedbench.errors import ConfigError
from fedbench.types import Dataset, Examples

OWN = [2, 0, 1, 2, 0, 2, 2, 4]
"""Whose each example is; client 3 has none."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def data(own: list[int] | None = None) -> Dataset:
    clients = torch.tensor(own or OWN)
    labels = torch.arange(len(clients)) % 2
    train = Examples(torch.arange(len(clients))[:, None], labels, labels * 0, clients)
    return Dataset(("even", "odd"), ("all",), train, train, ("ann", "bob", "cleo", "dan", "eve"))


def dealt(seed: int = 0, **options: object) -> list[list[int]]:
    return [part.tolist() for part in Natural(**options).partition(data=data(), rng=rng(seed))]


def test_every_client_has_the_examples_that_are_its_own() -> None:
    assert dealt() == [[1, 4], [2], [0, 3, 5, 6], [7]]


def test_small_clients_can_be_left_out() -> None:
    assert dealt(min_size=2) == [[1, 4], [0, 3, 5, 6]]


@pytest.mark.parametrize("options", [{"max_clients": 2}, {"fraction": 0.5}])
def test_a_few_clients_can_be_drawn(options: dict[str, object]) -> None:
    draws = {str(dealt(seed, **options)) for seed in range(50)}
    assert len(draws) == 6  # every pair of four
    for seed in range(5):
        chosen = dealt(seed, **options)
        assert len(chosen) == 2
        assert chosen == [part for part in dealt() if part in chosen]  # in the data's order
    assert dealt(3, **options) == dealt(3, **options)


def test_a_limit_that_is_not_reached_keeps_all_and_the_smallest_share_keeps_one() -> None:
    assert dealt(max_clients=9) == dealt()
    assert len(dealt(fraction=0.01)) == 1


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(ValueError, match="give max_clients or fraction, not both"):
        Natural(max_clients=1, fraction=0.5)
    with pytest.raises(ConfigError, match="no client has 5 training examples; the largest has 4"):
        Natural(min_size=5).partition(data=data(), rng=rng())
    plain = replace(data(), train=replace(data().train, clients=None), clients=())
    with pytest.raises(ConfigError, match=r"does not say which client .* \(synthetic, and hf"):
        Natural().partition(data=plain, rng=rng())


def test_subsets_and_noise_keep_whose_an_example_is() -> None:
    of = data(OWN * 20)
    thin = LongTail(rho=4.0).prepare_data(data=of, rng=rng())
    assert len(thin.train) < len(of.train)
    assert thin.clients == of.clients
    assert thin.train.clients is not None
    own = torch.tensor(OWN * 20)
    assert torch.equal(thin.train.clients, own[thin.train.inputs.flatten()])
    masked = of.train[of.train.labels == 1]
    assert torch.equal(masked.clients, own[1::2])
    noisy = LabelNoise().client_data(data=of.train, num_classes=2, rng=rng())
    floats = replace(noisy, inputs=noisy.inputs.float())
    noisy = FeatureNoise(growth="constant").client_data(
        data=floats, client=0, num_clients=1, rng=rng()
    )
    assert torch.equal(noisy.clients, own)


@pytest.mark.usefixtures("own_cache")
def test_the_cache_keeps_whose_an_example_is(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1")

    def decode(out: Writer) -> tuple[list[str], list[str]]:
        out.clients = ("ann", "bob")
        for clients in ([1, 0], [0]):
            out.add("train", np.zeros((len(clients), 1)), [0] * len(clients), clients=clients)
        out.add("test", np.zeros((2, 1)), [0, 0], clients=[0, 1])
        return ["only"], ["all"]

    source = Source(tmp_path, [tmp_path / "x.txt"], decode)
    for _ in range(2):
        found = caching.load(source, tmp_path, "x", {})
        assert found.clients == ("ann", "bob")
        assert found.train.clients.tolist() == [1, 0, 0]
        assert found.test.clients.tolist() == [0, 1]
    (damaged,) = (tmp_path / ".cache/x").glob("*/train.clients.npy")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    assert caching.load(source, tmp_path, "x", {}).train.clients.tolist() == [1, 0, 0]
