"""Stragglers: how many, the same ones whether they are dropped or not, and what they train."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from fedbench_baselines.stragglers import draw, partial_epochs

from fedbench.context import ClientContext


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("selected", "share", "number"),
    [(0, 0.9, 0), (10, 0.9, 9), (10, 0.5, 5), (10, 0.0, 0), (1, 0.9, 0)],
)
def test_a_fixed_number_of_the_selected_clients_is_drawn(selected, share, number) -> None:
    ids = list(range(100, 100 + selected))
    found = draw(ids, share, rng())
    assert len(found) == number
    assert set(found) <= set(ids)
    assert all(0 <= one < 1 for one in found.values())


def test_every_client_is_a_straggler_equally_often() -> None:
    generator = rng()
    seen = Counter(client for _ in range(2000) for client in draw(range(4), 0.5, generator))
    assert all(abs(seen[client] - 1000) < 100 for client in range(4))


def test_a_straggler_makes_one_to_all_but_one_epochs_equally_often() -> None:
    seen = Counter(partial_epochs(k / 1900, 20) for k in range(1900))
    assert seen == dict.fromkeys(range(1, 20), 100)
    assert partial_epochs(0.99, 1) == 1


@pytest.fixture
def epochs(run_tiny, monkeypatch: pytest.MonkeyPatch):
    """Run FedAvg with stragglers; return the epochs of each turn by round and client."""

    def run(**options):
        made, train = {}, ClientContext.train

        def counted(ctx, *args, epochs=None, **more):
            made[ctx.round, ctx.client] = 9 if epochs is None else epochs(9)
            return train(ctx, *args, epochs=epochs, **more)

        with monkeypatch.context() as patch:
            patch.setattr(ClientContext, "train", counted)
            extra = {"domains": {"clients_per_domain": 5}, "stragglers": options}
            return run_tiny("fedavg", extra=extra, rounds=3), made

    return run


def test_the_stragglers_that_one_method_drops_train_less_in_another(epochs) -> None:
    _, dropped = epochs(share=0.6, partial=False)
    _, partial = epochs(share=0.6)
    whole = {turn for turn, made in partial.items() if made == 9}
    assert len(partial) > len(whole) > 0
    assert set(dropped) == whole
    assert set(dropped.values()) == {9}
    assert all(1 <= made < 9 for turn, made in partial.items() if turn not in whole)


@pytest.mark.parametrize("partial", [True, False])
def test_without_stragglers_it_is_the_plain_method_bit_for_bit(epochs, run_tiny, partial) -> None:
    run, _ = epochs(share=0.0, partial=partial)
    plain = run_tiny("fedavg", extra={"domains": {"clients_per_domain": 5}}, rounds=3)
    assert run.result()["weights_sha256"] == plain.result()["weights_sha256"]
