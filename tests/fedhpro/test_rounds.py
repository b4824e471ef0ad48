"""FedHPro's plugins together, on real rounds: by hand on paper, and step by step on tiny data."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from fedbench_fedhpro import losses
from fedbench_fedhpro.class_batches import real_samples
from fedbench_fedhpro.hyper_prototypes import class_gradients, match, matching_loss
from fedbench_fedhpro.recalibration import (
    classifier_gradients,
    match_features,
    train_classifier,
)
from torch.nn import functional as F

from fedbench.context import ClientContext
from fedbench.errors import ConfigError
from fedbench.random import Streams
from fedbench.types import PerClass

THIRD = 1 / 3


def as_dict(value: PerClass) -> dict[int, list[float]]:
    return dict(zip(value.labels.tolist(), value.values.tolist(), strict=True))


def approx(rows: dict[int, list[float]]) -> dict[int, object]:
    return {label: pytest.approx(row, abs=1e-6) for label, row in rows.items()}


def mean_over_clients(reports, key: str) -> PerClass:
    """The plain mean over the clients that report a class, whatever their sizes."""
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
        expected = match(
            self.initial("hyper_prototypes", 5), mean, weight, bias, 30, 0.1, "coordinate"
        )
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
    """Three rounds on the tiny data, each server step recomputed from what went in."""

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


class TestMargin:
    """A client's 18 examples make 3 batches of at most 8; two local epochs, two rounds."""

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
        # One batch, so that the model is still the received one. Its forward pass comes first and
        # would change the statistics of batch norm.
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


class TestAblations:
    @pytest.mark.parametrize(
        "without",
        [
            ["hpal"],
            ["hpcl"],
            ["recalibration"],
            ["hpal", "hpcl"],
            ["hpal", "hpcl", "recalibration"],
            ["hpal", "hpcl", "hyper_prototypes"],
        ],
        ids=" ".join,
    )
    def test_a_part_left_out_leaves_no_trace(self, run, without):
        made = run(without=without)
        for result in made.history:
            for part in ("hpcl", "hpal"):
                assert (f"loss.{part}" in result.metrics) == (part not in without)
            diagnosed = {n for n in result.metrics if n.startswith("hyper_prototypes.")}
            assert len(diagnosed) == (0 if "hyper_prototypes" in without else 4)
            learning = "hyper_prototypes" not in without
            assert ("class_gradients" in result.bytes_up) == learning
            assert ("hyper_prototypes" in result.bytes_down) == learning
            recalibrating = "recalibration" not in without
            assert ("classifier_weight_gradients" in result.bytes_up) == recalibrating
            assert ("classifier_bias_gradients" in result.bytes_up) == recalibrating
        kept = {key.split(".")[0] for key in made.state.entries}
        assert kept == {"hyper_prototypes", "recalibration"} - set(without)

    @pytest.mark.parametrize("part", ["hpal", "hpcl", "recalibration"])
    def test_every_part_changes_the_weights(self, run, part):
        digests = {run(without=w, rounds=1).result()["weights_sha256"] for w in ([], [part])}
        assert len(digests) == 2

    @pytest.mark.parametrize(
        ("without", "who", "needs"),
        [
            (["hyper_prototypes"], "hpcl", "hyper_prototypes"),
            (["hyper_prototypes", "hpcl"], "hpal", "hyper_prototypes"),
            (["class_batches"], "recalibration", "class_batches"),
            (["class_batches", "recalibration"], "hyper_prototypes", "class_batches"),
            (["class_batches", "recalibration", "hyper_prototypes"], "hpcl", "class_batches"),
        ],
    )
    def test_a_part_that_others_need_is_an_error(self, resolve, without, who, needs):
        with pytest.raises(ConfigError) as caught:
            resolve(without=without)
        assert str(caught.value) == f"plugin {who!r} needs {needs!r} in this run"

    @pytest.mark.parametrize(
        ("part", "needs"),
        [
            ("recalibration", ["class_batches"]),
            ("hyper_prototypes", ["class_batches"]),
            ("hpcl", ["class_batches", "hyper_prototypes"]),
            ("hpal", ["class_batches", "hyper_prototypes"]),
        ],
    )
    def test_a_part_runs_with_what_it_needs_and_no_more(self, run, part, needs):
        plain, made = (
            run("fedavg", extra={name: {} for name in names}) for names in ([], [*needs, part])
        )
        assert set(made.config.plugins) - set(plain.config.plugins) == {*needs, part}
        assert len(made.history) == len(plain.history) == 2

    @pytest.mark.parametrize("margin", ["off", "round", "batch"])
    def test_with_both_weights_0_and_no_recalibration_it_is_fedavg_to_the_bit(self, run, margin):
        sets = ["hpcl.weight=0", "hpal.weight=0", f"hpcl.margin={margin}"]
        fedhpro = run(sets=sets, without=["recalibration"], rounds=3)
        fedavg = run("fedavg", rounds=3)
        for name, value in fedavg.state.weights.items():
            assert torch.equal(value, fedhpro.state.weights[name]), name
        assert fedavg.result()["weights_sha256"] == fedhpro.result()["weights_sha256"]


class TestRecipes:
    def test_the_published_one_differs_in_reduction_and_margin_alone(self, resolve):
        paper, published = (resolve(m).plugins for m in ("fedhpro", "fedhpro-published"))
        assert list(paper) == list(published)
        differences = {
            f"{part}.{option}": (value, published[part][option])
            for part, options in paper.items()
            for option, value in options.items()
            if value != published[part][option]
        }
        assert differences == {
            "hpcl.reduction": ("mean", "published"),
            "hpcl.margin": ("round", "off"),
        }

    def test_defaults_are_the_published_settings(self, resolve):
        parts = resolve().plugins
        assert parts["class_batches"] == {"size": 100, "repeats": 1, "augment": True}
        assert parts["hyper_prototypes"] == {
            "per_class": 5,
            "steps": 30,
            "lr": 0.1,
            "matching_distance": "coordinate",
        }
        assert parts["recalibration"] == {
            "features_per_class": 50,
            "steps": 100,
            "lr": 0.1,
            "epochs": 100,
            "batch_size": 50,
            "classifier_lr": 0.01,
        }
        assert parts["hpcl"]["temperature"] == 0.05

    @pytest.mark.parametrize("method", ["fedhpro", "fedhpro-published"])
    def test_every_round_reports_its_diagnostics_and_loss_terms(self, run, method):
        for result in run(method).history:
            diagnostics = ("matching_loss_before", "matching_loss_after", "movement", "alignment")
            terms = ("cross_entropy", "hpcl", "hpal")
            assert set(result.metrics) == {
                *(f"hyper_prototypes.{name}" for name in diagnostics),
                *(f"loss.{name}" for name in terms),
            }
            assert result.metrics["hyper_prototypes.movement"] > 0
            assert -1 <= result.metrics["hyper_prototypes.alignment"] <= 1

    def test_the_same_seed_gives_the_same_bits(self, run):
        one, two, other = (run(seed=s).result() for s in (0, 0, 1))
        for key in ("weights_sha256", "metrics_sha256"):
            assert one[key] == two[key] != other[key]
