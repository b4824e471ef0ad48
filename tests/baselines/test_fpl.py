"""FPL: properties of the clustering, the server by hand, and its term in real rounds."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.fpl import Fpl, cluster, finch, fpl_loss
from hypothesis import given
from hypothesis import strategies as st

from fedbench import PerClass, Report, testing

KEY = "fpl.prototypes"


def draw(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 30), st.integers(2, 8), st.integers(0, 1000))
def test_clusters_partition_the_prototypes(n, d, seed):
    labels = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(seed))
    counts = torch.arange(n) + 1
    prototypes = PerClass(labels, draw(n, d, seed), counts)
    found = cluster(prototypes)
    assert set(found.labels.tolist()) == set(labels.tolist())
    for c in labels.unique():
        mine, before = found.labels == c, labels == c
        assert int(found.counts[mine].sum()) == int(counts[before].sum())
        groups = finch(prototypes.values[before])
        assert int(mine.sum()) == len(groups.unique()) == int(groups.max()) + 1
        for row, g in zip(found.values[mine], groups.unique(), strict=True):
            torch.testing.assert_close(row, prototypes.values[before][groups == g].mean(0))


@given(st.integers(1, 30), st.integers(0, 1000))
def test_a_cluster_has_two_members_or_is_the_only_one(n, seed):
    sizes = finch(draw(n, 6, seed)).bincount()
    assert len(sizes) == 1 or int(sizes.min()) >= 2


@pytest.mark.parametrize("n", [1, 2, 3])
def test_up_to_three_prototypes_are_one_cluster(n):
    assert finch(draw(n, 4, 0)).tolist() == [0] * n


@given(st.integers(2, 20), st.integers(0, 1000))
def test_only_directions_count(n, seed):
    points = draw(n, 5, seed).double()
    lengths = torch.arange(1, n + 1)[:, None] * 0.5
    first, again = finch(points), finch(3.0 * points)
    assert torch.equal(first, again)
    # With other lengths the means move, but the first partition, here of four pairs, does not.
    pairs = torch.eye(4).repeat_interleave(2, 0) + 0.01 * draw(8, 4, seed)
    assert finch(pairs)[:2].unique().numel() == 1
    assert torch.isfinite(cluster(PerClass(torch.zeros(n).long(), points * lengths,
                                           torch.ones(n).long())).values).all()  # fmt: skip


def test_equal_prototypes_and_zeros_are_no_error():
    assert finch(torch.ones(6, 3)).max() == 0
    assert finch(torch.zeros(4, 3)).max() == 0


def report(client: int, rows: dict[int, list[float]]) -> Report:
    upload = PerClass(
        torch.tensor(list(rows)), torch.tensor(list(rows.values())), torch.full((len(rows),), 3)
    )
    return testing.report(client=client, uploads={KEY: upload})


def test_the_server_by_hand():
    """Class 0: two directions, two clients each. Class 2: one client. Class 1: no client."""
    reports = [
        report(0, {0: [1.0, 0.0]}),
        report(1, {0: [0.0, 2.0], 2: [5.0, 5.0]}),
        report(2, {0: [3.0, 0.1]}),
        report(3, {0: [0.1, 2.0]}),
    ]
    update = Fpl().server_update(reports=reports)
    found = update.entries[KEY]
    assert found.labels.tolist() == [0, 0, 2]
    torch.testing.assert_close(found.values, torch.tensor([[2.0, 0.05], [0.05, 2.0], [5.0, 5.0]]))
    assert found.counts.tolist() == [6, 6, 3]
    assert update.metrics == {"fpl.clusters": 3.0}
    # Clients use these in the next round: U_0 is the mean of the two, class 1 has no term.
    z, y = torch.tensor([[1.025, 1.025], [9.0, 9.0]]), torch.tensor([0, 1])
    near = 1 / (1 + 0.5 * torch.exp(torch.tensor((1 - 2.05 / 4.0025**0.5 / 2**0.5) / 0.5)))
    loss = fpl_loss(z, y, found, 0.5)
    torch.testing.assert_close(loss, -torch.log(near) / 2)


def test_the_order_of_prototypes_does_not_matter():
    prototypes = PerClass(torch.tensor([1, 0, 1, 2, 2]), draw(5, 4, 1), torch.ones(5).long())
    turned = PerClass(*(v.flip(0) for v in vars(prototypes).values()))
    z, y = draw(6, 4, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(fpl_loss(z, y, prototypes, 0.1), fpl_loss(z, y, turned, 0.1))


def test_a_small_temperature_does_not_overflow():
    prototypes = PerClass(torch.tensor([0, 1]), torch.eye(2), torch.ones(2).long())
    z = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = fpl_loss(z, torch.tensor([0]), prototypes, 1e-3)
    assert float(loss.detach()) == pytest.approx(1000 + 1)
    loss.backward()
    assert torch.isfinite(z.grad).all()


def test_numbers_of_clusters_may_differ_between_classes(run_tiny):
    """20 clients of three classes, the size at which the released code stops."""
    run = run_tiny("fpl", rounds=3, extra={"domains": {"clients_per_domain": 10}})
    found = run.state.entries.per_class(KEY)
    assert len(found) == run.history[-1].metrics["fpl.clusters"]
    assert found.counts.sum() == sum(len(part) for part in run.runtime.parts)
    assert len(set(found.labels.bincount().tolist())) > 1
    assert run.history[-1].metrics["loss.fpl"] > 0
    down = (6 * 4 + 16) * run.history[1].metrics["fpl.clusters"] * 20
    assert run.history[2].bytes_down[KEY] == down


def test_nothing_before_the_first_prototypes(run_tiny):
    first, second = run_tiny("fpl", rounds=2).history
    assert "loss.fpl" not in first.metrics
    assert KEY not in first.bytes_down
    assert second.metrics["loss.fpl"] > 0
