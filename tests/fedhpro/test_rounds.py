"""FedHPro's plugins together in real rounds: by hand on paper, and step by step on tiny data."""

from __future__ import annotations

import math

import pytest
import torch
from fedbench_fedhpro.class_batches import real_samples
from fedbench_fedhpro.hyper_prototypes import class_gradients, match, matching_loss
from fedbench_fedhpro.recalibration import (
    classifier_gradients,
    match_features,
    train_classifier,
)
from torch.nn import functional as F

from fedbench.random import Streams
from fedbench.types import PerClass

THIRD = 1 / 3


def as_dict(value: PerClass) -> dict[int, list[float]]:
    return dict(zip(value.labels.tolist(), value.values.tolist(), strict=True))


def approx(rows: dict[int, list[float]]) -> dict[int, object]:
    return {label: pytest.approx(row, abs=1e-6) for label, row in rows.items()}


def mean_over_clients(reports, key: str) -> PerClass:
    """Return the plain mean over the clients that report a class, whatever their sizes."""
    found: dict[int, list] = {}
    for report in reports:
        upload = report.uploads.per_class(key)
        for label, row in zip(upload.labels.tolist(), upload.values, strict=True):
            found.setdefault(label, []).append(row)
    labels = sorted(found)
    values = torch.stack([sum(found[c]) / len(found[c]) for c in labels])
    return PerClass(torch.tensor(labels), values, torch.tensor([len(found[c]) for c in labels]))


class TestOnPaper:
    """See `on_paper`: all probabilities are 1/3, W is ((3, 0), (0, 3), (0, 0))."""

    def initial(self, purpose: str, rows: int) -> torch.Tensor:
        return torch.randn(3, rows, 2, generator=Streams(0).torch(purpose, 0))

    def test_clients_upload_class_gradients(self, on_paper):
        uploads = []
        on_paper(server=lambda state, reports: uploads.extend(r.uploads for r in reports))
        # Class 0, twice: ((1, 1) - (3, 0)) / 2. Class 1: ((1, 1) - (0, 3)) / n.
        features = [as_dict(u.per_class("class_gradients")) for u in uploads]
        assert features == [approx({0: [-1, 0.5], 1: [1, -2]}), approx({1: [0.5, -1]})]
        biases = [as_dict(u.per_class("classifier_bias_gradients")) for u in uploads]
        one = [THIRD, -2 * THIRD, THIRD]
        assert biases == [approx({0: [-2 * THIRD, THIRD, THIRD], 1: one}), approx({1: one})]
        weights = [u.per_class("classifier_weight_gradients").values for u in uploads]
        assert [tuple(w.shape) for w in weights] == [(2, 3, 2), (1, 3, 2)]
        assert not any(w.any() for w in weights)

    def test_weights_are_averaged_and_hyper_prototypes_matched_to_the_mean_gradients(
        self, on_paper, rows
    ):
        made = on_paper(without=["recalibration"])
        weight, bias = made.state.classifier
        # Client 0's bias moves by -0.3 (-1/3, 0, 1/3), client 1's by -0.3 (1/3, -2/3, 1/3); 3 : 2.
        assert weight.tolist() == [[3, 0], [0, 3], [0, 0]]
        assert bias.tolist() == pytest.approx([0.02, 0.08, -0.1], abs=1e-6)
        mean = rows({0: torch.tensor([-1, 0.5]), 1: torch.tensor([0.75, -1.5])})
        expected = match(self.initial("hyper_prototypes", 5), mean, weight, bias, 30, 0.1, "cosine")
        torch.testing.assert_close(made.state.entries.tensor("hyper_prototypes"), expected)

    @pytest.mark.parametrize(
        ("online", "moves"), [([0, 1], [True, True, False]), ([1], [False, True, False])]
    )
    def test_what_no_online_client_holds_stays_as_it_was(self, on_paper, online, moves):
        made = on_paper(online=online)
        entries = made.state.entries
        for key, purpose, size in (
            ("hyper_prototypes", "hyper_prototypes", 5),
            ("recalibration.features", "recalibration", 50),
        ):
            before, after = self.initial(purpose, size), entries.tensor(key)
            moved = [not torch.equal(a, b) for a, b in zip(after, before, strict=True)]
            assert moved == moves, key
        gap = entries.tensor("hyper_prototypes") - self.initial("hyper_prototypes", 5)
        assert made.history[0].metrics["hyper_prototypes.movement"] == pytest.approx(
            float(gap[torch.tensor(moves)].abs().mean())
        )

    def test_loss_terms(self, on_paper):
        metrics = on_paper().history[0].metrics
        assert metrics["loss.cross_entropy"] == pytest.approx(math.log(3))
        assert metrics["loss.hpcl"] == pytest.approx(math.log(3))
        # (0, 0) against a unit vector: |u|^2 / 2 over two coordinates.
        assert metrics["loss.hpal"] == pytest.approx(0.25)
        assert metrics["hyper_prototypes.alignment"] == 0

    def test_weight_and_reduction_reach_the_losses(self, on_paper):
        sets = ["hpcl.reduction=published", "hpcl.weight=10", "hpal.weight=2"]
        metrics = on_paper(sets=sets).history[0].metrics
        # log(3) / 3 from the client with 3 examples, log(3) / 2 from the one with 2.
        assert metrics["loss.hpcl"] == pytest.approx(10 * math.log(3) * 2 / 5)
        assert metrics["loss.hpal"] == pytest.approx(0.5)


class TestClient:
    def test_the_gradients_of_several_draws_are_averaged(self, run, look):
        draws, uploads = [], []
        spy = look(
            client=lambda ctx: draws.append(real_samples(ctx)),
            server=lambda state, reports: uploads.extend(r.uploads for r in reports),
        )
        run(rounds=1, sets=["class_batches.repeats=3", "class_batches.size=4"], extra=spy)
        assert len(draws) == len(uploads) == 4
        for drawn, upload in zip(draws, uploads, strict=True):
            assert len(drawn) == 3
            both = [classifier_gradients(*draw) for draw in drawn]
            for key, parts in {
                "class_gradients": [class_gradients(*draw) for draw in drawn],
                "classifier_weight_gradients": [weight for weight, _ in both],
                "classifier_bias_gradients": [bias for _, bias in both],
            }.items():
                mean = sum(part.values for part in parts) / 3
                torch.testing.assert_close(upload.per_class(key).values, mean)
                assert torch.equal(upload.per_class(key).labels, parts[0].labels)


class TestServer:
    """Three rounds on the tiny data, each server step recomputed from its inputs."""

    @pytest.mark.parametrize("kind", ["coordinate", "cosine", "mse"])
    @pytest.mark.parametrize("without", [(), ("recalibration",)], ids=["whole", "no recalibration"])
    def test_recalibrates_first_then_matches_with_the_classifier_that_clients_get_next(
        self, run, look, without, kind
    ):
        received, states, reported = {}, [], []

        def server(state, reports):
            states.append(state)
            reported.append(reports)

        sets = [f"hyper_prototypes.matching_distance={kind}"]
        if not without:
            sets += ["recalibration.steps=20", "recalibration.epochs=5"]
        made = run(
            without=without,
            sets=sets,
            rounds=3,
            extra=look(lambda ctx: received.setdefault(ctx.round, ctx.payload), server),
        )
        features = torch.randn(3, 50, 6, generator=Streams(0).torch("recalibration", 0))
        for number, (state, reports, result) in enumerate(
            zip(states, reported, made.history, strict=True), start=1
        ):
            payload = received[number]
            before = payload.weights()["classifier.weight"], payload.weights()["classifier.bias"]
            if not without:
                dw = mean_over_clients(reports, "classifier_weight_gradients")
                db = mean_over_clients(reports, "classifier_bias_gradients")
                features = match_features(features, dw, db, *before, 20, 0.1)
                rng = Streams(0).torch("recalibration", number)
                weight, bias = train_classifier(features, 5, 50, 0.01, rng)
                torch.testing.assert_close(state.classifier, (weight, bias))
            problem = mean_over_clients(reports, "class_gradients"), *state.classifier
            start = payload.tensor("hyper_prototypes")
            end = match(start, *problem, 30, 0.1, kind)
            torch.testing.assert_close(state.entries.tensor("hyper_prototypes"), end)
            for name, value in {
                "matching_loss_before": matching_loss(start, *problem, kind),
                "matching_loss_after": matching_loss(end, *problem, kind),
                "movement": (end - start).abs().mean(),
            }.items():
                assert result.metrics[f"hyper_prototypes.{name}"] == pytest.approx(
                    float(value), rel=1e-4
                )
        for number, state in enumerate(states[:-1], start=1):
            following = received[number + 1]
            prototypes = state.entries.tensor("hyper_prototypes")
            assert torch.equal(following.tensor("hyper_prototypes"), prototypes)
            for name, value in state.weights.items():
                assert torch.equal(following.weights()[name], value), name

    def test_the_classifier_matters_to_the_hyper_prototypes(self, run):
        whole, plain = run(rounds=1), run(rounds=1, without=["recalibration"])
        a, b = (r.state.entries.tensor("hyper_prototypes") for r in (whole, plain))
        assert not torch.allclose(a, b)

    def test_alignment_is_the_mean_cosine_of_class_means_and_hyper_prototypes(self, run, look):
        cosines = []

        def client(ctx):
            z, y = real_samples(ctx)[0].features, real_samples(ctx)[0].labels
            anchors = ctx.payload.tensor("hyper_prototypes")
            each = [
                F.cosine_similarity(z[y == c].mean(0), sum(anchors[c]) / 5, dim=0)
                for c in y.unique().tolist()
            ]
            cosines.append(float(sum(each) / len(each)))

        made = run(rounds=1, extra=look(client))
        # Four clients of equal size.
        expected = pytest.approx(sum(cosines) / 4, rel=1e-5)
        assert made.history[0].metrics["hyper_prototypes.alignment"] == expected
