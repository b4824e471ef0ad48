"""Scores per domain and round become the one number that is reported, with its rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from fedbench.config.model import Accuracy
from fedbench.engine.evaluation import (
    accuracy_text,
    by_client,
    by_domain,
    counted,
    over_clients,
    over_domains,
    reported,
    score,
    view,
    views,
    whose,
)
from fedbench.engine.totals import canonical_round
from fedbench.errors import ConfigError, NonFiniteError
from fedbench.hookspecs import hookimpl
from fedbench.store.directory import RunDirectory
from fedbench.types import (
    CLIENTS_KEPT,
    ClientScores,
    Dataset,
    Examples,
    RoundResult,
    Scores,
    SplitScores,
    forward,
)


def history(*rounds: tuple[float, float]) -> list[Scores]:
    return [over_domains({"a": a, "b": b}, True) for a, b in rounds]


def test_over_domains_by_hand():
    scores = over_domains({"a": 0.5, "b": 0.9, "c": 0.7}, higher_is_better=True)
    assert scores.mean == pytest.approx(0.7)
    assert scores.worst == 0.5
    # population: sqrt((0.04 + 0.04 + 0) / 3)
    assert scores.std == pytest.approx(math.sqrt(0.08 / 3))


def test_the_worst_loss_is_the_highest():
    assert over_domains({"a": 0.5, "b": 0.9}, higher_is_better=False).worst == 0.9


def test_one_domain_is_its_own_summary():
    scores = over_domains({"a": 0.25}, True)
    assert (scores.mean, scores.worst, scores.std) == (0.25, 0.25, 0.0)


def test_values_per_class_have_no_summary():
    assert over_domains({"a": [0.5, 1.0], "b": [0.0, 0.0]}, True) == Scores(
        {"a": [0.5, 1.0], "b": [0.0, 0.0]}
    )


ROUNDS = history((0.1, 0.3), (0.9, 0.5), (0.2, 0.4), (0.6, 0.6))


@pytest.mark.parametrize(
    ("rule", "a", "b", "text"),
    [
        (Accuracy(rule="last"), 0.6, 0.6, "last round"),
        (Accuracy(rule="last_k", k=2), 0.4, 0.5, "mean of the last 2 rounds"),
        (Accuracy(rule="last_k", k=3), 1.7 / 3, 0.5, "mean of the last 3 rounds"),
        (Accuracy(rule="last_k", k=9), 0.45, 0.45, "mean of the last 4 rounds"),
        (Accuracy(rule="last_k", k=1), 0.6, 0.6, "last round"),
        # the best round by its mean over domains, not each domain's own best
        (Accuracy(rule="best"), 0.9, 0.5, "best round on test data"),
    ],
    ids=lambda value: f"{value.rule}-{value.k}" if isinstance(value, Accuracy) else "",
)
def test_the_rules_on_four_rounds(rule, a, b, text):
    scores = reported(rule, ROUNDS, higher_is_better=True)
    assert scores.domains == {"a": pytest.approx(a), "b": pytest.approx(b)}
    assert scores.mean == pytest.approx((a + b) / 2)
    assert scores.worst == pytest.approx(min(a, b))
    assert scores.std == pytest.approx(abs(a - b) / 2)
    assert accuracy_text(rule, len(ROUNDS)) == text


def test_the_default_is_the_mean_of_the_last_five_rounds():
    assert accuracy_text(Accuracy(), 20) == "mean of the last 5 rounds"


def test_the_text_names_another_inference():
    rule = Accuracy(metric="loss", rule="last", inference="prototypes")
    assert accuracy_text(rule, 3) == "last round, prototypes inference"


@pytest.mark.parametrize(
    ("values", "higher_is_better", "best"),
    [
        ([0.0, 0.2, 0.1], True, 0.2),
        ([0.5, 0.0, 0.1], False, 0.0),
        ([-0.5, 0.0, -0.2], True, 0.0),
    ],
)
def test_the_best_round_of_any_metric(values, higher_is_better, best):
    rounds = [over_domains({"a": v}, higher_is_better) for v in values]
    assert reported(Accuracy(rule="best"), rounds, higher_is_better).mean == best


@pytest.mark.parametrize(
    ("rule", "higher_is_better", "rounds"),
    [
        (Accuracy(rule="last"), True, [3]),
        (Accuracy(rule="last_k", k=1), True, [3]),
        (Accuracy(rule="last_k", k=3), True, [1, 2, 3]),
        (Accuracy(rule="last_k", k=9), True, [0, 1, 2, 3]),
        (Accuracy(rule="best"), True, [1]),
        (Accuracy(rule="best"), False, [0]),
    ],
    ids=lambda value: f"{value.rule}-{value.k}" if isinstance(value, Accuracy) else "",
)
def test_which_rounds_count(rule, higher_is_better, rounds):
    assert counted(rule, ROUNDS, higher_is_better) == rounds
    assert counted(rule, [], higher_is_better) == []


def test_of_equally_good_rounds_the_first_counts():
    assert counted(Accuracy(rule="best"), history((0.5, 0.5), (0.6, 0.4)), True) == [0]


@pytest.mark.parametrize("rounds", [[], [Scores({"a": [0.1, 0.2]})]], ids=["none", "per class"])
def test_a_rule_needs_rounds_with_one_number_per_domain(rounds):
    with pytest.raises(ConfigError, match="needs a metric with one number per domain"):
        reported(Accuracy(), rounds, True)


# --- inference -----------------------------------------------------------------------------------


class Line(nn.Module):
    """Scores of two classes: (w x, 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.classifier = nn.Identity()

    def features(self, x):
        assert not self.training
        return torch.cat([x * self.w, x * 0], 1)


class Share:
    higher_is_better = True
    unit = "percent"

    def __call__(self, scores, labels):
        return float((scores.argmax(1) == labels).double().mean())


class PerClassShare:
    higher_is_better = True
    unit = "percent"

    def __call__(self, scores, labels):
        right = scores.argmax(1) == labels
        return [float(right[labels == c].sum() / max(1, (labels == c).sum())) for c in (0, 1)]


class Broken:
    higher_is_better = True
    unit = "percent"

    def __init__(self, value):
        self.value = value

    def __call__(self, scores, labels):
        return self.value


def dataset() -> Dataset:
    # class 0 where x > 0; one wrong label in domain a; domain b has no test data
    x = torch.tensor([[1.0], [2.0], [-1.0], [-2.0], [3.0]])
    labels = torch.tensor([0, 0, 1, 0, 0])
    domains = torch.tensor([0, 0, 0, 0, 2])
    examples = Examples(x, labels, domains)
    return Dataset(("plus", "minus"), ("a", "b", "c"), examples, examples)


@torch.no_grad()
def scored(models, rules=None, metrics=None):
    """Score models: domain number -> the weight w of each; outputs come two examples at a time."""
    metrics = metrics or {"share": Share(), "classes": PerClassShare()}
    rules = rules or {"plain": lambda output: output.logits}
    data, found = dataset(), {}
    for number, each in models.items():
        name = data.domains[number]
        here = data.test[data.test.domains == number]
        found[name] = []
        for w in each:
            model = Line().eval()
            model.load_state_dict({"w": torch.tensor([w])})
            parts = [forward(model, x) for x in here.inputs.split(2)]
            where = f"the test data of {name}"
            found[name].append(score(parts, here.labels, rules, metrics, where))
    return by_domain(found, rules, metrics)


def test_each_domain_is_scored_on_its_own_data():
    found = scored({0: [1.0], 2: [1.0]})["plain"]
    assert found["share"].domains == {"a": 0.75, "c": 1.0}
    assert found["share"].mean == 0.875
    assert found["classes"].domains["a"] == [pytest.approx(2 / 3), 1.0]
    assert found["classes"].mean is None


def test_every_inference_rule_is_scored():
    rules = {"plain": lambda o: o.logits, "swapped": lambda o: o.logits.flip(1)}
    found = scored({0: [1.0], 2: [1.0]}, rules)
    assert found["swapped"]["share"].domains == {"a": 0.25, "c": 0.0}


def test_personal_models_of_a_domain_are_averaged():
    found = scored({0: [1.0, -1.0], 2: [-1.0]})["plain"]
    assert found["share"].domains == {"a": pytest.approx((0.75 + 0.25) / 2), "c": 0.0}
    assert found["classes"].domains["a"] == [pytest.approx((2 / 3 + 1 / 3) / 2), 0.5]


class OfPredicted(PerClassShare):
    """The share of each class; none for a class that is never predicted."""

    def __call__(self, scores, labels):
        predicted = set(scores.argmax(1).tolist())
        share = super().__call__(scores, labels)
        return [value if c in predicted else None for c, value in enumerate(share)]


def test_models_without_a_value_of_a_class_are_left_out_of_its_mean():
    # domain c has one example, x = 3: the first model predicts class 0 there, the second class 1
    for models, expected in (
        ([1.0, -1.0], [1.0, 0.0]),
        ([1.0, 2.0], [1.0, None]),
        ([1.0, -1.0, -1.0], [1.0, 0.0]),
    ):
        found = scored({2: models}, metrics={"classes": OfPredicted()})
        assert found["plain"]["classes"].domains["c"] == expected
        assert found["plain"]["classes"].mean is None


class WithoutOne:
    """Take the test examples of the last class out of the domain ``ink``."""

    @hookimpl
    def prepare_data(self, data):
        test = data.test
        kept = (test.labels != len(data.classes) - 1) | (test.domains != data.domains.index("ink"))
        return replace(data, test=test[kept])


def test_a_class_without_a_test_example_is_null_in_the_files(add, run_tiny, tmp_path):
    add(without_one=dataclass(frozen=True, eq=False)(WithoutOne))
    run = run_tiny(directory=tmp_path / "r", extra={"without_one": {}})
    assert RunDirectory(tmp_path / "r").read_rounds() == run.history
    for result in run.history:
        found = result.scores["classifier"]["class_accuracy"].domains
        assert found["ink"][2] is None
        assert None not in (*found["ink"][:2], *found["chalk"])
        assert ", null]" in canonical_round(result)


@pytest.mark.parametrize("value", [math.nan, math.inf, [0.5, math.nan], [None, math.inf]], ids=str)
def test_a_metric_that_is_not_finite_ends_the_run(value):
    with pytest.raises(NonFiniteError, match=r"^metric 'broken' is .* on the test data of a; try"):
        scored({0: [1.0]}, metrics={"broken": Broken(value)})


# --- clients and populations ---------------------------------------------------------------------


def test_over_clients_by_hand():
    scores = over_clients({0: 0.5, 3: 1.0, 7: 0.0}, {0: 2, 3: 1, 7: 1}, higher_is_better=True)
    assert scores.mean == pytest.approx((2 * 0.5 + 1.0 + 0.0) / 4)  # by held-out examples
    assert scores.plain == pytest.approx(0.5)
    assert scores.std == pytest.approx(math.sqrt(0.5 / 3))
    assert scores.worst_tenth == 0.0
    assert scores.clients == {0: 0.5, 3: 1.0, 7: 0.0}


@pytest.mark.parametrize(("clients", "counted"), [(1, 1), (9, 1), (10, 1), (11, 2), (30, 3)])
def test_the_worst_tenth_is_rounded_up_and_the_worst_losses_are_the_highest(clients, counted):
    values = {c: float(c) for c in range(clients)}
    sizes = dict.fromkeys(values, 1)
    low, high = range(counted), range(clients - counted, clients)
    mean = {True: sum(low) / counted, False: sum(high) / counted}
    for better, expected in mean.items():
        assert over_clients(values, sizes, better).worst_tenth == pytest.approx(expected)


def test_a_round_keeps_every_clients_score_up_to_a_thousand_clients():
    for clients, kept in ((CLIENTS_KEPT, CLIENTS_KEPT), (CLIENTS_KEPT + 1, 0)):
        values = dict.fromkeys(range(clients), 0.5)
        assert len(over_clients(values, dict.fromkeys(values, 2), True).clients) == kept
    assert CLIENTS_KEPT == 1000


def test_metrics_with_a_value_per_class_have_no_mean_over_clients():
    rules, metrics = {"plain": None}, {"share": Share(), "classes": PerClassShare()}
    found = {4: {("plain", "share"): 0.25, ("plain", "classes"): [0.5, None]}}
    assert by_client(found, {4: 8}, rules, metrics) == {
        "plain": {"share": ClientScores(0.25, 0.25, 0.0, 0.25, {4: 0.25})}
    }


def round_of(number: int, share: float) -> RoundResult:
    """Return a round with other scores on test and validation data, domains and clients."""
    domains = [{"plain": {"share": over_domains({"a": share + n}, True)}} for n in (0, 10)]
    clients = [
        {"plain": {"share": over_clients({0: share + n, 1: share + n + 4}, {0: 3, 1: 1}, True)}}
        for n in (20, 30)
    ]
    held = SplitScores(domains[1], clients[1])
    return RoundResult(number, [0], domains[0], {}, {}, {}, 1.0, (), clients[0], held)


@pytest.mark.parametrize(
    ("population", "split", "mean", "worst"),
    [
        ("domains", "test", 0.5, 0.5),
        ("domains", "validation", 10.5, 10.5),
        ("clients", "test", 21.5, 20.5),
        ("clients", "validation", 31.5, 30.5),
    ],
)
def test_a_view_is_of_one_population_and_split(population, split, mean, worst):
    rule = Accuracy(metric="share", inference="plain", population=population, split=split)
    one = view(round_of(1, 0.5), rule)
    assert (one.mean, one.worst) == (pytest.approx(mean), pytest.approx(worst))


def test_rounds_that_were_not_scored_are_not_in_the_history_of_a_rule():
    rule = Accuracy(metric="share", inference="plain", rule="last_k", k=2)
    skipped = RoundResult(2, [0], {}, {}, {}, {}, 1.0)
    rounds = [round_of(1, 0.25), skipped, round_of(3, 0.75), replace(skipped, round=4)]
    assert view(skipped, rule) is None
    found = views(rounds, rule)
    assert [one.mean for one in found] == [0.25, 0.75]
    assert reported(rule, found, True).mean == 0.5


def test_a_rule_over_clients_averages_means_worst_tenths_and_deviations_over_its_rounds():
    rule = Accuracy(metric="share", inference="plain", population="clients", rule="last_k", k=2)
    found = views([round_of(1, 0.0), round_of(2, 1.0)], rule)
    assert reported(rule, found, True) == Scores({}, 21.5, 20.5, 2.0)
    assert accuracy_text(rule, 2) == (
        "mean of the last 2 rounds, plain inference, mean over clients"
    )


def test_the_text_names_validation_data():
    rule = Accuracy(rule="best", split="validation")
    assert accuracy_text(rule, 3) == "best round on validation data, validation data"


@pytest.mark.parametrize(
    ("model", "population", "domains", "clients"),
    [
        ("auto", "domains", "personal", "personal"),
        ("auto", "clients", "global", "personal"),
        ("global", "domains", "global", "personal"),
        ("personal", "clients", "personal", "personal"),
    ],
)
def test_whose_models_are_scored(model, population, domains, clients):
    """Clients always use their own models; ``accuracy.model`` is about the domains."""
    rule = Accuracy(model=model, population=population)
    assert whose(rule, "domains", makes_models=True) == domains
    assert whose(rule, "clients", makes_models=True) == clients
    assert whose(rule, "domains", makes_models=False) == "global"
