"""FedHPro's recipes: their settings, and what is left when a part is left out."""

from __future__ import annotations

import pytest
import torch

from fedbench.errors import ConfigError


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
    def test_the_published_one_differs_in_distance_reduction_and_margin_alone(self, resolve):
        paper, published = (resolve(m).plugins for m in ("fedhpro", "fedhpro-published"))
        assert list(paper) == list(published)
        differences = {
            f"{part}.{option}": (value, published[part][option])
            for part, options in paper.items()
            for option, value in options.items()
            if value != published[part][option]
        }
        assert differences == {
            "hyper_prototypes.matching_distance": ("cosine", "coordinate"),
            "hpcl.reduction": ("mean", "published"),
            "hpcl.margin": ("round", "off"),
        }

    def test_defaults_are_the_published_settings(self, resolve):
        parts = resolve("fedhpro-published").plugins
        assert parts["class_batches"] == {"size": 100, "repeats": 1, "augment": True}
        assert parts["hyper_prototypes"] == {
            "per_class": 5,
            "steps": 30,
            "lr": 0.1,
            "matching_distance": "coordinate",
            "start": "normal",
        }
        assert parts["recalibration"] == {
            "features_per_class": 50,
            "steps": 100,
            "lr": 0.1,
            "epochs": 100,
            "batch_size": 50,
            "classifier_lr": 0.01,
            "until": None,
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

    def test_recalibration_ends_with_its_last_round(self, run):
        digests = {
            until: run(sets=[f"recalibration.until={until}"], rounds=3).result()["weights_sha256"]
            for until in ("null", 3, 1, 0)
        }
        digests["without"] = run(without=["recalibration"], rounds=3).result()["weights_sha256"]
        assert digests["null"] == digests[3]
        assert digests[0] == digests["without"]
        assert len(set(digests.values())) == 3

    def test_nothing_is_sent_for_recalibration_that_is_over(self, run):
        first, second = run(sets=["recalibration.until=1"], rounds=2).history
        sent = {"classifier_weight_gradients", "classifier_bias_gradients"}
        assert sent <= first.bytes_up.keys()
        assert not sent & second.bytes_up.keys()
