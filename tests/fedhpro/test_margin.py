"""The client's margin in real rounds: how often it is computed, and from which class means."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from fedbench_fedhpro import losses
from fedbench_fedhpro.class_batches import real_samples

from fedbench.context import ClientContext


class TestMargin:
    """A client's 18 examples are 3 batches of at most 8; two local epochs, two rounds."""

    SETS = ("sgd.epochs=2",)

    @pytest.fixture
    def embedded(self, monkeypatch) -> Counter[tuple[int, int]]:
        """How often each client ran its model over its data, by (round, client)."""
        counts: Counter[tuple[int, int]] = Counter()
        embed = ClientContext.embed

        def counted(ctx, index=None):
            counts[ctx.round, ctx.client] += 1
            return embed(ctx, index)

        monkeypatch.setattr(ClientContext, "embed", counted)
        return counts

    @pytest.fixture
    def margins(self, monkeypatch) -> list[float]:
        """The margin of every batch, in order."""
        seen = []
        hpcl = losses.hpcl

        def recorded(features, labels, hyper_prototypes, temperature, margin, reduction):
            seen.append(margin)
            return hpcl(features, labels, hyper_prototypes, temperature, margin, reduction)

        monkeypatch.setattr(losses, "hpcl", recorded)
        return seen

    @pytest.mark.parametrize(
        ("margin", "times", "passes"),
        [("off", 0, 0), ("round", 1, 0), ("epoch", 2, 2), ("batch", 6, 6)],
    )
    def test_is_computed_as_often_as_asked(self, run, embedded, margins, margin, times, passes):
        run(sets=[*self.SETS, f"hpcl.margin={margin}"])
        turns = [(number, client) for number in (1, 2) for client in range(4)]
        assert dict(embedded) == (dict.fromkeys(turns, passes) if passes else {})
        assert len(margins) == 6 * len(turns)
        for n in range(len(turns)):
            mine = margins[6 * n : 6 * n + 6]
            assert len(set(mine)) == max(1, times)
            assert mine == sorted(mine, key=mine.index)  # each value in one stretch
            assert (mine[0] == 0) == (margin == "off")

    @pytest.mark.parametrize("margin", ["round", "epoch"])
    def test_comes_from_the_class_means_under_the_current_local_model(
        self, run, look, margins, monkeypatch, margin
    ):
        # There is one batch, so the model is still the received one. The batch's forward pass comes
        # first and would change the statistics of batch norm.
        expected = []

        def client(ctx):
            if margin == "epoch":
                output, labels = ctx.embed()
                features = output.features
            else:
                features, labels = real_samples(ctx)[0].features, real_samples(ctx)[0].labels
            means = [features[labels == c].mean(0) for c in labels.unique().tolist()]
            pairs = [(a, b) for a in means for b in means if a is not b]
            expected.append(sum(float(a @ b) for a, b in pairs) / 2**2)

        monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", lambda self, x: x)
        sets = ["sgd.batch_size=100", f"hpcl.margin={margin}"]
        run(rounds=1, sets=sets, extra=look(client))
        assert margins == pytest.approx(expected, rel=1e-5)
        assert min(margins) > 0

    def test_of_class_batches_without_augmentation_is_that_of_all_examples(
        self, run, margins, monkeypatch
    ):
        monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", lambda self, x: x)
        sets = ["sgd.batch_size=100", "class_batches.augment=false"]
        found = {}
        for margin in ("round", "epoch"):
            margins.clear()
            run(rounds=1, sets=[*sets, f"hpcl.margin={margin}"])
            found[margin] = list(margins)
        assert found["round"] == pytest.approx(found["epoch"], rel=1e-5)
