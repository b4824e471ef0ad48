"""What each client holds out of its examples: whole examples, by class, from streams of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedbench import ConfigError, Dataset, Run
from fedbench.config.model import Clients
from fedbench.random import Streams
from fedbench.splits import HeldOut, hold_out, hold_out_all, matched, shares
from fedbench.testing import tiny_dataset

COUNTS = st.lists(st.integers(0, 20), min_size=1, max_size=8)


@given(COUNTS, st.floats(0, 1))
def test_shares_add_up_and_are_as_close_to_proportion_as_whole_numbers_allow(
    counts: list[int], part: float
) -> None:
    total = int(part * sum(counts))
    found = shares(counts, total)
    assert sum(found) == total
    for count, given_to in zip(counts, found, strict=True):
        exact = count * total / max(1, sum(counts))
        assert given_to <= count
        assert abs(given_to - exact) < 1


def test_of_equal_remainders_the_first_group_gets_the_example() -> None:
    assert shares([1, 1, 1], 2) == [1, 1, 0]
    assert shares([3, 1], 2) == [2, 0]
    assert shares([0, 0], 0) == [0, 0]


LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=40).map(torch.tensor)


@given(LABELS, st.floats(0, 0.999), st.integers(0, 5))
def test_a_client_is_split_by_class_and_keeps_at_least_one_example(
    labels: Tensor, share: float, seed: int
) -> None:
    stays, held = hold_out(labels, share, np.random.default_rng(seed))
    n = len(labels)
    assert torch.equal(torch.cat([stays, held]).sort().values, torch.arange(n))
    assert torch.equal(stays, stays.sort().values)
    assert torch.equal(held, held.sort().values)
    assert len(held) == min(int(share * n + 0.5), n - 1)
    for c in labels.unique():
        exact = int((labels == c).sum()) * len(held) / n
        assert abs(int((labels[held] == c).sum()) - exact) < 1


def test_a_split_is_random_and_the_same_for_the_same_stream() -> None:
    labels = torch.zeros(50).long()
    one, again, other = (hold_out(labels, 0.5, np.random.default_rng(s))[1] for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_matched_test_data_has_the_clients_classes_and_domains() -> None:
    mine = torch.tensor([0] * 6 + [1] * 2), torch.tensor([0] * 6 + [1] * 2)
    theirs = torch.tensor([0, 1] * 20), torch.tensor([0, 0, 1, 1] * 10)
    found = matched((mine[0], theirs[0]), (mine[1], theirs[1]), 0.5, np.random.default_rng(0))
    kinds = Counter(zip(theirs[0][found].tolist(), theirs[1][found].tolist(), strict=True))
    assert kinds == {(0, 0): 3, (1, 1): 1}
    assert len(set(found.tolist())) == 4


def test_matched_test_data_is_less_where_the_test_set_has_less() -> None:
    mine, theirs = torch.zeros(20).long(), torch.tensor([0, 1, 0])
    zeros = torch.zeros(20).long(), torch.zeros(3).long()
    found = matched((mine, theirs), zeros, 0.5, np.random.default_rng(0))
    assert found.tolist() == [0, 2]


# --- all clients ---------------------------------------------------------------------------------


def parts(*sizes: int) -> list[Tensor]:
    return list(torch.arange(sum(sizes)).split(list(sizes)))


def split(data: Dataset, cut: Sequence[Tensor], **rule: object) -> HeldOut:
    return hold_out_all(data, cut, Clients(**rule), Streams(3))  # type: ignore[arg-type]


def test_nothing_is_held_out_unless_it_is_asked_for() -> None:
    cut = parts(30, 42)
    found = split(tiny_dataset(), cut)
    assert found.held == {}
    assert all(torch.equal(a, b) for a, b in zip(found.train, cut, strict=True))


def test_test_and_validation_data_are_apart_from_each_other_and_from_training() -> None:
    cut = parts(30, 42)
    found = split(tiny_dataset(), cut, test=0.2, validation=0.25)
    for client, part in enumerate(cut):
        pieces = [found.train[client], *(found.held[s][client] for s in ("test", "validation"))]
        assert torch.equal(torch.cat(pieces).sort().values, part)
        # validation is a share of what is left: 0.25 of 24 and of 34
        assert [len(piece) for piece in pieces[1:]] == [[6, 6], [8, 9]][client]


def test_another_held_out_share_moves_no_other_split() -> None:
    """The test split has its own stream, so that adding validation leaves it as it was."""
    cut, data = parts(30, 42), tiny_dataset()
    alone, both = split(data, cut, test=0.2), split(data, cut, test=0.2, validation=0.25)
    for one, other in zip(alone.held["test"], both.held["test"], strict=True):
        assert torch.equal(one, other)
    more = split(data, [*cut[:1], torch.arange(30, 60)], test=0.2)
    assert torch.equal(more.held["test"][0], alone.held["test"][0]), "a client's own stream"


def test_matched_data_costs_a_client_no_training_example() -> None:
    cut, data = parts(30, 42), tiny_dataset()
    found = split(data, cut, test=0.2, test_from="matched")
    assert found.matched
    assert all(torch.equal(a, b) for a, b in zip(found.train, cut, strict=True))
    examples, members = found.scored(data, "test", client=1)
    assert examples is data.test
    assert len(members) == len(found.held["test"][1]) > 0


def test_a_client_that_is_too_small_is_named_and_holds_out_nothing() -> None:
    found = split(tiny_dataset(), parts(1, 2, 40), test=0.2)
    assert found.too_small("test") == [0, 1]
    assert found.clients("test") == [2]
    assert [len(part) for part in found.train] == [1, 2, 32]
    assert found.too_small("validation") == found.clients("validation") == []


def test_a_share_that_is_too_small_for_every_client_is_refused() -> None:
    text = r"^clients.test: 0.1 of a client's examples is less than one for every client; use a "
    with pytest.raises(ConfigError, match=text):
        split(tiny_dataset(), parts(1, 2), test=0.1)


def test_a_domains_validation_data_is_what_its_clients_hold_out() -> None:
    data, cut = tiny_dataset(), parts(30, 42)
    found = split(data, cut, validation=0.5)
    members = [found.scored(data, "validation", domain)[1] for domain in (0, 1)]
    for domain, chosen in enumerate(members):
        assert (data.train.domains[chosen] == domain).all()
    everyone = torch.cat(list(found.held["validation"]))
    assert torch.equal(torch.cat(members).sort().values, everyone.sort().values)


def test_holding_data_out_changes_no_other_random_number(run_tiny: Callable[..., Run]) -> None:
    """Of a run whose clients train on all that they have, not a bit changes."""
    plain = run_tiny("fedavg").result()
    more = run_tiny("fedavg", clients={"test": 0.5, "test_from": "matched"}).result()
    assert more["weights_sha256"] == plain["weights_sha256"]
    assert more["accuracy"]["domains"] == plain["accuracy"]["domains"]
