"""Modifiers of the data: what they change, what they leave alone, and that they compose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fedbench_datasets.modifiers import (
    FeatureNoise,
    LabelNoise,
    LongTail,
    Subset,
    add_noise,
    long_tail_sizes,
    noisy_labels,
)
from hypothesis import given
from hypothesis import strategies as st

from fedbench.errors import ConfigError
from fedbench.runtime import Runtime
from fedbench.types import Dataset, Examples


def rng(seed=0):
    return np.random.default_rng(seed)


def data(counts):
    """Return ``counts[c]`` training examples of class c, with distinct inputs, and 5 to test on."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    train = Examples(torch.arange(len(labels))[:, None], labels, torch.zeros_like(labels))
    test = Examples(torch.zeros(5, 1).long(), torch.zeros(5).long(), torch.zeros(5).long())
    return Dataset(tuple(f"c{i}" for i in range(len(counts))), ("all",), train, test)


# Long tail


def test_long_tail_has_the_class_sizes_of_the_published_log():
    published = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert long_tail_sizes(np.full(10, 5000), 100).tolist() == published
    of = data([5000] * 10)
    kept = LongTail(rho=100).prepare_data(data=of, rng=rng()).train
    assert kept.labels.bincount().tolist() == published


@given(available=st.lists(st.integers(1, 500), min_size=1, max_size=12), rho=st.floats(1, 1000))
def test_long_tail_falls_exponentially_by_rho_whatever_there_is(available, rho):
    sizes = long_tail_sizes(np.array(available), rho)
    assert (sizes <= available).all()
    n_max = min(n * rho ** (c / max(1, len(available) - 1)) for c, n in enumerate(available))
    for c, size in enumerate(sizes):
        assert size == pytest.approx(n_max * rho ** (-c / max(1, len(available) - 1)), abs=1.001)


def test_long_tail_keeps_random_examples_in_their_order_and_all_test_data():
    of = data([200, 200])
    cut, again, other = (LongTail(4.0).prepare_data(of, rng(s)) for s in (0, 0, 1))
    kept = cut.train.inputs.flatten()
    assert torch.equal(kept, kept.unique())
    assert torch.equal(cut.train.labels, of.train.labels[kept])
    assert torch.equal(kept, again.train.inputs.flatten())
    assert not torch.equal(kept, other.train.inputs.flatten())
    assert cut.test is of.test


def test_a_subset_keeps_the_share_of_each_class_in_each_domain_and_at_least_one_example():
    labels = torch.tensor([0] * 40 + [1] * 20 + [0] * 10 + [1])
    domains = torch.tensor([0] * 60 + [1] * 11)
    train = Examples(torch.arange(71)[:, None], labels, domains)
    of = Dataset(("a", "b"), ("x", "y"), train, train[torch.arange(5)])
    cut, again, other = (Subset(0.25).prepare_data(of, rng(s)) for s in (0, 0, 1))
    kept = cut.train.inputs.flatten()
    cells = (cut.train.domains * 2 + cut.train.labels).bincount().tolist()
    assert cells == [10, 5, 2, 1]
    assert torch.equal(kept, kept.unique())
    assert torch.equal(cut.train.labels, labels[kept])
    assert torch.equal(kept, again.train.inputs.flatten())
    assert not torch.equal(kept, other.train.inputs.flatten())
    assert cut.test is of.test


@pytest.mark.parametrize(
    ("rho", "counts", "message"),
    [
        (101.0, [100, 100], "long_tail.rho: 101 leaves no example of class 'c1', which has 100; "),
        (2.0, [10, 0], "long_tail.rho: 2 leaves no example of class 'c0', which has 10; "),
    ],
)
def test_a_long_tail_that_ends_too_early_is_an_error(rho, counts, message):
    with pytest.raises(ConfigError) as error:
        LongTail(rho).prepare_data(data=data(counts), rng=rng())
    assert str(error.value) == message + "use a smaller rho"


# Label noise


@given(
    classes=st.integers(2, 10),
    rate=st.floats(0, 1),
    kind=st.sampled_from(["symmetric", "pairs"]),
    seed=st.integers(0, 99),
)
def test_label_noise_flips_at_its_rate_and_never_to_the_same_class(classes, rate, kind, seed):
    labels = np.arange(4000) % classes
    noisy = noisy_labels(labels, classes, rate, kind, rng(seed))
    assert noisy.min() >= 0
    assert noisy.max() < classes
    assert (noisy != labels).mean() == pytest.approx(rate, abs=0.05)
    if kind == "pairs":
        assert set((noisy - labels) % classes) <= {0, 1}


def test_symmetric_noise_reaches_every_other_class_equally_often():
    noisy = noisy_labels(np.zeros(30_000, np.int64), 4, 1.0, "symmetric", rng())
    assert np.bincount(noisy, minlength=4) == pytest.approx([0, 10_000, 10_000, 10_000], abs=300)


def test_more_noise_keeps_the_wrong_labels_of_less_noise():
    labels = np.arange(1000) % 10
    less, more = (noisy_labels(labels, 10, rate, "symmetric", rng()) for rate in (0.2, 0.5))
    wrong = less != labels
    assert (more[wrong] == less[wrong]).all()
    assert (more != labels).sum() > wrong.sum()


def test_label_noise_knows_classes_that_the_client_does_not_hold():
    client = data([100, 100, 100]).train[torch.arange(100)]  # class 0 only
    noisy = LabelNoise(1.0).client_data(data=client, num_classes=3, rng=rng())
    assert noisy.labels.unique().tolist() == [1, 2]
    assert (client.labels == 0).all()  # the data set itself is left alone
    assert noisy.inputs is client.inputs


def test_label_noise_needs_two_classes():
    with pytest.raises(ConfigError, match="label_noise needs at least 2 classes"):
        LabelNoise().client_data(data=data([5]).train, num_classes=1, rng=rng())


def test_leave_out_trains_on_the_others_and_tests_on_the_one(run_tiny):
    run = run_tiny("fedproto", rounds=1, extra={"leave_out": {"domain": "chalk"}})
    assert set(run.history[0].scores["classifier"]["accuracy"].domains) == {"chalk"}
    assert run.runtime.data.train.domains.unique().tolist() == [0]
    assert len(run.runtime.parts) == 2  # two clients of ink, none of chalk


def test_leave_out_of_an_unknown_domain_names_the_nearest(run_tiny):
    with pytest.raises(ConfigError, match=r"leave_out.domain: no domain 'chalc'.*'chalk'"):
        run_tiny("fedavg", extra={"leave_out": {"domain": "chalc"}})


# Feature noise


@pytest.mark.parametrize("deviation", [0.05, 0.2])
def test_noise_has_its_deviation_in_units_of_the_full_range(deviation):
    floats = torch.full((200, 100), 0.5)
    assert add_noise(floats, deviation, rng()).std() == pytest.approx(deviation, rel=0.02)
    bytes_ = torch.full((200, 100), 128, dtype=torch.uint8)
    noisy = add_noise(bytes_, deviation, rng())
    assert noisy.dtype == torch.uint8
    assert noisy.float().std() / 255 == pytest.approx(deviation, rel=0.05)


def test_noise_is_rounded_and_clipped_to_bytes():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).repeat(500, 1)
    noise = torch.from_numpy(rng().standard_normal((500, 2), dtype=np.float32))
    wanted = (pixels + 0.3 * 255 * noise).round().clamp(0, 255).to(torch.uint8)
    noisy = add_noise(pixels, 0.3, rng())
    assert torch.equal(noisy, wanted)
    assert (noisy[:, 0] == 0).float().mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("growth", "clients", "deviations"),
    [
        ("linear", 5, [0, 0.1, 0.2, 0.3, 0.4]),
        ("constant", 3, [0.4, 0.4, 0.4]),
        ("linear", 1, [0]),
    ],
)
def test_noise_grows_with_the_client_as_in_niid_bench(growth, clients, deviations):
    zeros = torch.zeros(5000)
    examples = Examples(torch.zeros(5000, 4), zeros.long(), zeros.long())
    plugin = FeatureNoise(deviation=0.4, growth=growth)
    for client, deviation in enumerate(deviations):
        noisy = plugin.client_data(
            data=examples, client=client, num_clients=clients, rng=rng(client)
        )
        assert noisy.inputs.std() == pytest.approx(deviation, rel=0.03)
        assert noisy.labels is examples.labels
    assert (examples.inputs == 0).all()


def test_noise_on_token_ids_is_an_error():
    tokens = data([5]).train
    with pytest.raises(ConfigError, match=r"feature_noise takes uint8 or float inputs; .* int64"):
        FeatureNoise().client_data(data=tokens, client=0, num_clients=2, rng=rng())


# All together, in a run

PARTITIONS = {
    "iid": {"clients": 3},
    "quantity": {"clients": 3, "min_size": 2},
    "shards": {"clients": 3},
    "classes_per_client": {"clients": 3, "classes": 2},
    "biased": {"one_class_clients": 1, "all_class_clients": 2},
    "dirichlet": {"clients": 3, "alpha": 1.0, "min_size": 2},
    "domains": {"clients_per_domain": 2, "examples": 5},
}


REST = {"uniform": {}, "sgd": {}, "exchange": {}, "mean": {}, "cross_entropy": {}}
TAIL = {"long_tail": {"rho": 4.0}}
NOISE = {"label_noise": {"rate": 0.5}, "feature_noise": {"growth": "constant"}}


@pytest.mark.parametrize("partition", PARTITIONS)
def test_modifiers_compose_with_every_partition(registry, tiny_config, partition):
    rule = {partition: PARTITIONS[partition]}
    tail, full = (
        Runtime(tiny_config(registry, plugins={**pieces, **rule, **REST}), registry, Path())
        for pieces in (TAIL, NOISE | TAIL)
    )
    assert tail.data.train.labels.bincount().tolist() == [24, 12, 6]
    # Noise changes neither the partition nor the clean labels that it is made from.
    assert torch.equal(full.data.train.labels, tail.data.train.labels)
    assert len(full.parts) == len(tail.parts)
    assert all(map(torch.equal, full.parts, tail.parts))
    for client in range(len(full.parts)):
        clean, noisy, again = (r.client_data(client) for r in (tail, full, full))
        assert noisy.inputs.dtype == torch.uint8
        assert not torch.equal(noisy.inputs, clean.inputs)
        assert not torch.equal(noisy.labels, clean.labels)
        assert torch.equal(noisy.inputs, again.inputs)
        assert torch.equal(noisy.labels, again.labels)
