"""Partitions: every example once, sizes as promised, and errors that say what would work."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from fedbench_datasets.dirichlet import Dirichlet, Quantity
from fedbench_datasets.partitions import (
    Biased,
    ClassesPerClient,
    Domains,
    Iid,
    Shards,
    choose_classes,
    evenly,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.errors import ConfigError
from fedbench.types import Dataset, Examples

RULES = {
    "iid": lambda clients: Iid(clients),
    "quantity": lambda clients: Quantity(clients, min_size=2),
    "shards": lambda clients: Shards(clients),
    "classes_per_client": lambda clients: ClassesPerClient(clients, classes=3),
    "biased": lambda clients: Biased(clients - 2, 2),
    "dirichlet": lambda clients: Dirichlet(clients, alpha=1.0, min_size=2),
    "capped": lambda clients: Dirichlet(clients, alpha=1.0, min_size=2, form="capped"),
    "published": lambda clients: Dirichlet(clients, alpha=1.0, min_size=2, form="published"),
}
"""Rules that divide all of the data, for 3 or more clients."""


def rng(seed=0):
    return np.random.default_rng(seed)


def data(counts, seed=0):
    """Return ``counts[c]`` training examples of class c, shuffled; the inputs do not matter."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    train = Examples(torch.zeros(len(labels), 1), labels, torch.zeros_like(labels))
    return Dataset(tuple(f"c{i}" for i in range(len(counts))), ("all",), train, train)


def table(parts, of):
    """Return (clients, classes) how many examples of each class each client has."""
    return torch.stack(
        [of.train.labels[part].bincount(minlength=len(of.classes)) for part in parts]
    )


datasets = st.lists(st.integers(30, 80), min_size=3, max_size=6).map(data)


# What holds for every rule


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30)
@given(of=datasets, clients=st.integers(3, 12), seed=st.integers(0, 99))
def test_every_example_belongs_to_exactly_one_client_and_no_client_is_empty(
    rule, of, clients, seed
):
    parts = RULES[rule](clients).partition(data=of, rng=rng(seed))
    assert len(parts) == clients
    assert min(len(part) for part in parts) >= 1
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(of.train)))


@pytest.mark.parametrize("rule", RULES)
def test_the_stream_decides(rule):
    of = data([40, 50, 60])
    first, again, other = (RULES[rule](4).partition(data=of, rng=rng(s)) for s in (1, 1, 2))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@pytest.mark.parametrize("rule", RULES)
def test_ten_thousand_clients(rule):
    of = data([20_000] * 10)
    parts = RULES[rule](10_000).partition(data=of, rng=rng())
    assert len(parts) == 10_000
    assert sum(len(part) for part in parts) == 200_000


@pytest.mark.parametrize("rule", ["iid", "published"])
@given(clients=st.integers(1, 40), n=st.integers(80, 200))
def test_clients_of_equal_size_differ_by_one_at_most(rule, clients, n):
    sizes = [len(part) for part in RULES[rule](clients).partition(data=data([n, n]), rng=rng())]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rule", [Quantity, Dirichlet, partial(Dirichlet, form="capped")])
@given(min_size=st.integers(1, 20), alpha=st.floats(0.3, 100))
def test_no_client_is_smaller_than_min_size(rule, min_size, alpha):
    parts = rule(4, alpha, min_size).partition(data=data([60, 60, 60]), rng=rng())
    assert min(len(part) for part in parts) >= min_size


# Each rule


def test_shards_as_mcmahan_cut_mnist():
    of = data([600] * 10)
    counts = table(Shards(100, 2).partition(data=of, rng=rng()), of)
    assert (counts.sum(1) == 60).all()
    assert set(counts.unique().tolist()) == {0, 30, 60}  # a shard is half of a client, of one class
    assert (counts > 0).sum(1).float().mean() > 1.5


@given(
    present=st.integers(1, 12),
    clients=st.integers(1, 30),
    k=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_classes_are_chosen_equally_often_and_once_by_a_client(present, clients, k, seed):
    k = min(k, present)
    chosen = choose_classes(np.arange(present), clients, k, rng(seed))
    assert all(len(set(classes)) == k for classes in chosen)
    often = np.bincount(np.concatenate(chosen), minlength=present)
    assert often.max() - often.min() <= 1


def test_classes_per_client_divides_a_class_evenly_among_its_holders():
    of = data([60, 61, 62, 63])
    counts = table(ClassesPerClient(8, 2).partition(data=of, rng=rng()), of)
    assert ((counts > 0).sum(1) == 2).all()
    for column in counts.T:
        held = column[column > 0]
        assert len(held) == 4
        assert held.max() - held.min() <= 1


def test_classes_without_examples_are_given_to_nobody():
    of = data([60, 0, 60, 60])
    for plugin in (ClassesPerClient(3, 2), Biased(3, 2)):
        counts = table(plugin.partition(data=of, rng=rng()), of)
        assert counts.sum(0).tolist() == [60, 0, 60, 60]


def test_biased_clients_hold_one_class_each_and_the_others_all():
    of = data([60, 60, 60])
    counts = table(Biased(one_class_clients=5, all_class_clients=2).partition(of, rng()), of)
    assert ((counts[:5] > 0).sum(1) == 1).all()
    assert (counts[5:] > 0).all()
    one_class = (counts[:5] > 0).sum(0)  # five clients over three classes: 2, 2 and 1
    assert sorted(one_class.tolist()) == [1, 2, 2]
    assert torch.equal(counts[5], 60 // (one_class + 2))


def test_quantity_shares_by_dirichlet_and_keeps_the_classes_alike():
    of = data([4000, 4000])
    counts = table(Quantity(4, alpha=0.5, min_size=100).partition(data=of, rng=rng(3)), of)
    sizes = counts.sum(1).float()
    assert sizes.max() > 3 * sizes.min()
    assert ((counts[:, 0] / sizes - 0.5).abs() < 0.1).all()


def test_dirichlet_is_nearly_iid_for_a_large_alpha_and_one_class_for_a_small_one():
    of = data([1000] * 4)
    even = table(Dirichlet(4, alpha=1e6, min_size=1).partition(data=of, rng=rng()), of)
    assert ((even - 250).abs() < 10).all()
    single = table(Dirichlet(4, alpha=1e-6, min_size=1).partition(data=of, rng=rng()), of)
    assert sorted(single.flatten().tolist()) == [0] * 12 + [1000] * 4


@given(of=datasets, clients=st.integers(2, 8), seed=st.integers(0, 99))
def test_a_capped_client_with_its_even_share_gets_nothing_of_later_classes(of, clients, seed):
    plugin = Dirichlet(clients, alpha=0.5, min_size=1, form="capped")
    counts = table(plugin.partition(data=of, rng=rng(seed)), of)
    assert counts.sum() == len(of.train)
    before = counts.cumsum(1) - counts
    assert (counts[before * clients >= len(of.train)] == 0).all()


def test_published_form_cuts_what_the_clients_drew_into_equal_blocks():
    # Each client draws one class, and all have the same size: the second cut changes nothing.
    of = data([30] * 10)
    counts = table(Dirichlet(10, 1e-6, form="published").partition(data=of, rng=rng()), of)
    assert sorted(counts.flatten().tolist()) == [0] * 90 + [30] * 10
    # Uneven classes: every client still gets 30, so blocks extend into the neighbour's draw.
    of = data([60] + [30] * 7 + [15, 15])
    counts = table(Dirichlet(10, 1e-6, form="published").partition(data=of, rng=rng()), of)
    assert (counts.sum(1) == 30).all()


def test_published_form_draws_for_ten_clients_at_a_time():
    # In each stretch of ten clients a class goes to one of them, so about one in ten holds it.
    of = data([1000] * 10)
    counts = table(Dirichlet(100, 1e-6, form="published").partition(data=of, rng=rng()), of)
    holders = (counts > 25).sum(0)
    assert ((holders >= 8) & (holders <= 14)).all()


# Domains


def two_domains(first=30, second=50):
    one = data([first + second])
    domains = torch.cat([torch.zeros(first), torch.ones(second)]).long()
    train = Examples(one.train.inputs, one.train.labels, domains)
    return Dataset(one.classes, ("ink", "chalk"), train, train)


@given(
    ink=st.integers(0, 5),
    chalk=st.integers(1, 5),
    share=st.sampled_from([{}, {"examples": 6}, {"fraction": 0.2}]),
)
def test_each_client_draws_from_one_domain_and_no_example_is_given_twice(ink, chalk, share):
    of = two_domains()
    plugin = Domains({"ink": ink, "chalk": chalk}, **share)
    parts = plugin.partition(data=of, rng=rng())
    of_client = [of.train.domains[part].unique().tolist() for part in parts]
    assert of_client == [[0]] * ink + [[1]] * chalk
    everything = torch.cat(parts)
    assert len(everything.unique()) == len(everything)
    for part, (domain,) in zip(parts, of_client, strict=True):
        size, clients = (30, ink) if domain == 0 else (50, chalk)
        wanted = {"examples": 6, "fraction": size // 5}
        assert len(part) == next((wanted[k] for k in share), size // clients)


# Impossible requests


@pytest.mark.parametrize(
    ("plugin", "counts", "message"),
    [
        (
            Iid(41),
            [20, 20],
            "iid.clients: 41 clients with at least 1 each need 41 training examples; there are 40, "
            "enough for clients: 40",
        ),
        (
            Dirichlet(500, 0.5, min_size=10),
            [100] * 10,
            "dirichlet.clients: 500 clients with at least 10 each need 5,000 training examples; "
            "there are 1,000, enough for clients: 100 or min_size: 2",
        ),
        (
            Quantity(5, min_size=10),
            [20, 20],
            "quantity.clients: 5 clients with at least 10 each need 50 training examples; there "
            "are 40, enough for clients: 4 or min_size: 8",
        ),
        (
            Shards(21, 2),
            [20, 20],
            "shards: 21 clients with shards_per_client: 2 need 42 shards, and there are 40 "
            "training examples; at most clients: 20 can have 2 each",
        ),
        (
            ClassesPerClient(5, 3),
            [20, 20],
            "classes_per_client.classes: 3 is more than the 2 classes that have training examples",
        ),
        (
            ClassesPerClient(2, 2),
            [20] * 5,
            "classes_per_client: 2 clients with 2 each hold only 4 of 5 classes; use classes: 3 or "
            "clients: 3",
        ),
        (
            ClassesPerClient(9, 2),
            [20, 5, 20],
            "classes_per_client: 6 clients would hold class 'c1', which has 5 training examples; "
            "use clients: 7 at most",
        ),
        (
            Biased(2, 5),
            [20, 5],
            "biased: 6 clients would hold class 'c1', which has 5 training examples; use "
            "all_class_clients: 4 at most",
        ),
        (
            Dirichlet(4, 0.001, form="published"),
            [100],
            "dirichlet.alpha: no draw with alpha 0.001 gave each of 4 clients half its even "
            "share; try a larger alpha or form: plain",
        ),
        (
            Domains({"al": 2}),
            [20, 20],
            "domains.clients_per_domain: no domain 'al' (did you mean 'all'?)",
        ),
        (
            Domains(5, examples=10),
            [20, 20],
            "domains: all has 40 training examples, too few for 5 clients with 10 each",
        ),
    ],
)
def test_an_impossible_request_says_why_and_what_would_work(monkeypatch, plugin, counts, message):
    monkeypatch.setattr("fedbench_datasets.dirichlet.DRAWS", 20_000)
    with pytest.raises(ConfigError) as error:
        plugin.partition(data=data(counts), rng=rng())
    assert str(error.value) == message


def test_dirichlet_gives_up_and_names_a_min_size_that_works(monkeypatch):
    monkeypatch.setattr("fedbench_datasets.dirichlet.DRAWS", 100_000)
    of = data([500] * 10)
    with pytest.raises(ConfigError, match=r"min_size: 40 is out of reach with alpha 0\.1") as error:
        Dirichlet(100, alpha=0.1, min_size=40).partition(data=of, rng=rng())
    assert "in 100 draws the smallest of 100 clients had" in str(error.value)
    assert str(error.value).endswith("fewer clients, a larger alpha or form: published")

    with pytest.raises(ConfigError, match="try min_size: ") as error:
        Dirichlet(100, alpha=2.0, min_size=40).partition(data=of, rng=rng())
    best = int(str(error.value).split("try min_size: ")[1].split(",")[0])
    parts = Dirichlet(100, alpha=2.0, min_size=best).partition(data=of, rng=rng())
    assert min(len(part) for part in parts) == best


def test_fraction_and_examples_exclude_each_other():
    with pytest.raises(ValueError, match="give examples or fraction, not both"):
        Domains(2, examples=3, fraction=0.5)


@given(n=st.integers(0, 50), parts=st.integers(1, 12))
def test_equal_blocks_are_as_numpy_cuts_them(n, parts):
    sizes = np.bincount(evenly(n, parts), minlength=parts)
    assert sizes.tolist() == [len(block) for block in np.array_split(np.arange(n), parts)]
