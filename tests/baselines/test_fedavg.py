"""FedAvg: the mean of the clients' weights, weighted by examples, and which clients train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from fedbench_baselines.fedavg import weighted_mean
from fedbench_baselines.sampling import BySize, Uniform
from hypothesis import given
from hypothesis import strategies as st

from fedbench import ServerContext, testing


def test_two_clients_and_three_weights_by_hand():
    one = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor(0.0)}
    two = {"w": torch.tensor([4.0, -2.0]), "b": torch.tensor(3.0)}
    mean = weighted_mean([(one, 1), (two, 2)])
    assert mean["w"].tolist() == [3.0, pytest.approx(-2 / 3)]
    assert float(mean["b"]) == 2.0


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(0, 2**31))
def test_averaging_identical_clients_is_the_identity(counts, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "w": torch.randn(17, generator=generator)
        * 10.0 ** torch.randint(-6, 6, (17,), generator=generator),
        "seen": torch.tensor(12345),
    }
    mean = weighted_mean([(weights, n) for n in counts])
    for name, value in weights.items():
        assert torch.equal(mean[name], value)
        assert mean[name].dtype == value.dtype


@given(st.lists(st.integers(1, 50), min_size=2, max_size=5), st.integers(0, 100))
def test_the_average_weighs_by_examples(counts, seed):
    generator = torch.Generator().manual_seed(seed)
    models = [torch.randn(5, generator=generator, dtype=torch.float64) for _ in counts]
    mean = weighted_mean([({"w": w}, n) for w, n in zip(models, counts, strict=True)])["w"]
    whole = sum(n * w for w, n in zip(models, counts, strict=True)) / sum(counts)
    torch.testing.assert_close(mean, whole)
    # The mean is between the smallest and the largest value that the clients sent.
    assert (mean >= torch.stack(models).amin(0) - 1e-12).all()
    assert (mean <= torch.stack(models).amax(0) + 1e-12).all()


def test_integer_buffers_are_rounded_and_types_are_kept():
    items = [({"n": torch.tensor(n), "h": torch.tensor(1.0).half()}, 1) for n in (1, 2, 2)]
    mean = weighted_mean(items)
    assert (mean["n"].item(), mean["n"].dtype) == (2, torch.int64)
    assert mean["h"].dtype == torch.float16


def test_the_stream_is_read_once_and_what_came_in_is_left_alone():
    first = torch.ones(3)

    def stream() -> Iterator[tuple[dict[str, torch.Tensor], int]]:
        yield {"w": first}, 1
        yield {"w": torch.zeros(3)}, 1

    assert weighted_mean(stream())["w"].tolist() == [0.5, 0.5, 0.5]
    assert first.tolist() == [1, 1, 1]


def test_many_small_contributions_are_not_lost():
    # In float32 the sum would stop growing at 2**24.
    items = (({"w": torch.tensor([1.0])}, 1) for _ in range(1000))
    big = ({"w": torch.tensor([0.0])}, 2**24)
    mean = weighted_mean([big, *items])["w"]
    assert float(mean) == pytest.approx(1000 / (2**24 + 1000), rel=1e-6)


def test_the_server_sends_its_weights_and_clients_send_theirs(run_tiny):
    run = run_tiny(rounds=1)
    result = run.history[0]
    assert set(result.bytes_up) == set(result.bytes_down) == {"weights"}
    assert result.bytes_up == result.bytes_down


# --- sampling ------------------------------------------------------------------------------------


def context(clients: int, round: int = 1, seed: int = 0) -> ServerContext:
    return testing.server_context(round=round, client_sizes=(5,) * clients, seed=seed)


@given(st.integers(1, 60), st.floats(0.01, 1.0), st.integers(0, 5))
def test_sampling_is_distinct_and_of_the_wanted_size(clients, fraction, seed):
    chosen = Uniform(fraction).select_clients(ctx=context(clients, seed=seed))
    assert len(chosen) == len(set(chosen)) == max(1, round(fraction * clients))
    assert set(chosen) <= set(range(clients))


def test_all_clients_take_part_by_default():
    assert sorted(Uniform().select_clients(ctx=context(7))) == list(range(7))


def test_the_sample_depends_on_seed_and_round_and_is_the_same_for_every_method():
    rule = Uniform(0.2)
    draws = [
        tuple(rule.select_clients(ctx=context(50, round=r, seed=s))) for r in (1, 2) for s in (0, 1)
    ]
    assert len(set(draws)) == 4
    assert draws[0] == tuple(Uniform(0.2).select_clients(ctx=context(50)))


def test_every_client_is_drawn_equally_often():
    counts = torch.zeros(10)
    for r in range(1, 1001):
        counts[Uniform(0.3).select_clients(ctx=context(10, round=r))] += 1
    # 300 are expected of each, with a standard deviation of 14.5.
    assert counts.sum() == 3000
    assert (counts - 300).abs().max() < 60


def test_clients_are_drawn_one_after_the_other_in_proportion_to_their_sizes():
    sizes = (60, 30, 10)
    counts = torch.zeros(3, 3)
    for r in range(1, 1001):
        ctx = testing.server_context(round=r, client_sizes=sizes, seed=0)
        first, second = BySize(2 / 3).select_clients(ctx=ctx)
        counts[first, second] += 1
    # P(a, then b) is n_a / n * n_b / (n - n_a).
    wanted = torch.tensor([[0, 450, 150], [257.1, 0, 42.9], [66.7, 33.3, 0]])
    assert (counts - wanted).abs().max() < 60
    assert counts.diagonal().sum() == 0
