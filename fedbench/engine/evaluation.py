"""Accuracy on the test data, per domain and class, and the rule that reduces it to one number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config.model import Accuracy
from ..contracts import Metric
from ..errors import ConfigError, NonFiniteError
from ..types import Dataset, Output, Score, Scores

Rules = Mapping[str, Callable[[Output], Tensor]]


def classifier_rule(output: Output) -> Tensor:
    """Predict with the linear classifier: its logits (B, C)."""
    return output.logits


@torch.no_grad()
def evaluate(
    outputs: Callable[[int], Iterator[Sequence[Output]]],
    data: Dataset,
    rules: Rules,
    metrics: Mapping[str, Metric],
) -> dict[str, dict[str, Scores]]:
    """Score the models of every domain on its test data.

    Args:
        outputs: domain number -> for each model to be tested on that domain, the model's outputs
            for its test data, part by part in order; scores are averaged over models. Called for
            each domain with test data, in order.
        data: the data set; a domain without test data is left out.
        rules: inference rules by name.
        metrics: metrics by name.

    Raises:
        NonFiniteError: for a metric that is NaN or infinite.

    Returns:
        inference rule -> metric -> `Scores`.
    """
    values: dict[str, dict[str, dict[str, Score]]] = {
        rule: {metric: {} for metric in metrics} for rule in rules
    }
    for number, domain in enumerate(data.domains):
        labels = data.test.labels[data.test.domains == number]
        if not len(labels):
            continue
        found: dict[tuple[str, str], list[Score]] = {}
        for parts in outputs(number):
            for rule, scores_of in rules.items():
                scores = torch.cat([scores_of(output).cpu() for output in parts])
                for name, metric in metrics.items():
                    given = metric(scores, labels)
                    value: Score = [*given] if isinstance(given, list) else given
                    if not all(map(math.isfinite, _numbers(value))):
                        raise NonFiniteError(
                            f"metric {name!r} is {value} on the test data of {domain}; try a "
                            "smaller learning rate"
                        )
                    found.setdefault((rule, name), []).append(value)
        for (rule, name), each in found.items():
            values[rule][name][domain] = _mean(each)
    return {
        rule: {
            name: over_domains(found, metrics[name].higher_is_better) for name, found in m.items()
        }
        for rule, m in values.items()
    }


def _numbers(value: Score) -> list[float]:
    return [v for v in value if v is not None] if isinstance(value, list) else [value]


def _mean(values: Sequence[Score]) -> Score:
    """Return the mean of numbers, or of lists class by class over those that have a value."""
    lists = [v for v in values if isinstance(v, list)]
    if lists:
        columns = [_numbers([*column]) for column in zip(*lists, strict=True)]
        return [statistics.fmean(column) if column else None for column in columns]
    return statistics.fmean(v for v in values if not isinstance(v, list))


def over_domains(domains: Mapping[str, Score], higher_is_better: bool) -> Scores:
    """Summarise values over domains: unweighted mean, worst, population standard deviation."""
    numbers = [v for v in domains.values() if isinstance(v, (int, float))]
    if len(numbers) != len(domains) or not numbers:
        return Scores(domains)
    worst = min(numbers) if higher_is_better else max(numbers)
    return Scores(domains, statistics.fmean(numbers), worst, statistics.pstdev(numbers))


def accuracy_text(rule: Accuracy, rounds: int) -> str:
    """Return the rule in words, as printed beside every number; the metric is named there too."""
    used = min(rule.k, rounds)
    words = {
        "last": "last round",
        "last_k": "last round" if used == 1 else f"mean of the last {used} rounds",
        "best": "best round on test data",
    }[rule.rule]
    inference = "" if rule.inference == "classifier" else f", {rule.inference} inference"
    return words + inference


def counted(rule: Accuracy, history: Sequence[Scores], higher_is_better: bool) -> list[int]:
    """Return which rounds the accuracy rule counts, as positions in ``history``, ascending.

    Args:
        rule: the run's accuracy rule.
        history: the scores of its metric after rounds 1, 2, ...
        higher_is_better: of the metric; only the rule ``best`` uses it.
    """
    if rule.rule == "best" and history:
        sign = 1 if higher_is_better else -1
        return [max(range(len(history)), key=lambda n: sign * (history[n].mean or 0.0))]
    last = rule.k if rule.rule == "last_k" else 1
    return list(range(len(history)))[-last:]


def reported(rule: Accuracy, history: Sequence[Scores], higher_is_better: bool) -> Scores:
    """Apply the accuracy rule to the scores of rounds 1, 2, ..., and summarise over domains.

    Raises:
        ConfigError: when there is no round yet or the metric has no single number per domain.
    """
    if not history or history[-1].mean is None:
        raise ConfigError(
            "accuracy.metric: the accuracy rule needs a metric with one number per domain"
        )
    chosen = [history[n] for n in counted(rule, history, higher_is_better)]
    domains: dict[str, Any] = {
        name: statistics.fmean(float(s.domains[name]) for s in chosen)  # type: ignore[arg-type]
        for name in chosen[-1].domains
    }
    return over_domains(domains, higher_is_better)
