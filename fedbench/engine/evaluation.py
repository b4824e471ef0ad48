"""Accuracy on the test data, per domain and class, and the rule that reduces it to one number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config.model import Accuracy, RunConfig
from ..contracts import Metric
from ..errors import ConfigError, NonFiniteError
from ..types import CLIENTS_KEPT, ClientScores, Output, RoundResult, Score, Scores

Rules = Mapping[str, Callable[[Output], Tensor]]


def classifier_rule(output: Output) -> Tensor:
    """Predict with the linear classifier: its logits (B, C)."""
    return output.logits


@torch.no_grad()
def score(
    parts: Sequence[Output],
    labels: Tensor,
    rules: Rules,
    metrics: Mapping[str, Metric],
    where: str,
) -> dict[tuple[str, str], Score]:
    """Score one model on some examples.

    Args:
        parts: its outputs, part by part in order.
        labels: (n,) int64 of all parts.
        rules: inference rules by name.
        metrics: metrics by name.
        where: what the examples are, for the error.

    Raises:
        NonFiniteError: for a metric that is NaN or infinite.

    Returns:
        (inference rule, metric) -> score.
    """
    found: dict[tuple[str, str], Score] = {}
    for rule, scores_of in rules.items():
        scores = torch.cat([scores_of(output).cpu() for output in parts])
        for name, metric in metrics.items():
            given = metric(scores, labels)
            # Plain numbers, as they are read back from a file.
            value: Score = (
                [None if one is None else float(one) for one in given]
                if isinstance(given, list)
                else float(given)
            )
            if not all(map(math.isfinite, _numbers(value))):
                raise NonFiniteError(
                    f"metric {name!r} is {value} on {where}; try a smaller learning rate"
                )
            found[rule, name] = value
    return found


Found = Mapping[tuple[str, str], Score]
"""What `score` returns."""


def by_domain(
    found: Mapping[str, Sequence[Found]], rules: Rules, metrics: Mapping[str, Metric]
) -> dict[str, dict[str, Scores]]:
    """Summarise scores over domains; those of several models on one domain are averaged.

    Args:
        found: domain -> scores of each model.
        rules: inference rules by name.
        metrics: metrics by name.
    """
    return {
        rule: {
            name: over_domains(
                {
                    domain: _mean([one[rule, name] for one in each])
                    for domain, each in found.items()
                },
                metric.higher_is_better,
            )
            for name, metric in metrics.items()
        }
        for rule in rules
    }


def by_client(
    found: Mapping[int, Found],
    sizes: Mapping[int, int],
    rules: Rules,
    metrics: Mapping[str, Metric],
) -> dict[str, dict[str, ClientScores]]:
    """Summarise scores over clients; metrics with a value per class are left out.

    Args:
        found: client id -> scores of its model on its own data.
        sizes: client id -> how many examples that are.
        rules: inference rules by name.
        metrics: metrics by name.
    """
    scores: dict[str, dict[str, ClientScores]] = {rule: {} for rule in rules}
    for rule in rules:
        for name, metric in metrics.items():
            values = {client: one[rule, name] for client, one in found.items()}
            numbers = {c: float(v) for c, v in values.items() if not isinstance(v, list)}
            if len(numbers) == len(values) and numbers:
                scores[rule][name] = over_clients(numbers, sizes, metric.higher_is_better)
    return scores


def over_clients(
    values: Mapping[int, float], sizes: Mapping[int, int], higher_is_better: bool
) -> ClientScores:
    """Summarise one number per client; ``sizes`` are the clients' held-out examples."""
    numbers = list(values.values())
    worst = sorted(numbers, reverse=not higher_is_better)[: max(1, math.ceil(len(numbers) / 10))]
    total = sum(sizes[client] for client in values)
    return ClientScores(
        mean=math.fsum(value * sizes[client] for client, value in values.items()) / total,
        plain=statistics.fmean(numbers),
        std=statistics.pstdev(numbers),
        worst_tenth=statistics.fmean(worst),
        clients=dict(values) if len(values) <= CLIENTS_KEPT else {},
    )


def view(one: RoundResult, rule: Accuracy, metric: str | None = None) -> Scores | None:
    """Return a round's scores that an accuracy rule is about; ``None`` if it was not scored.

    Over clients, the mean is by examples, and the worst is the worst tenth.
    """
    if rule.population == "domains":
        domains = one.validation.domains if rule.split == "validation" else one.scores
        return domains.get(rule.inference, {}).get(metric or rule.metric)
    found = client_view(one, rule, metric)
    return Scores({}, found.mean, found.worst_tenth, found.std) if found else None


def client_view(one: RoundResult, rule: Accuracy, metric: str | None = None) -> ClientScores | None:
    """Return a round's scores over clients by a rule's split, inference and metric, if any."""
    clients = one.validation.clients if rule.split == "validation" else one.client_scores
    return clients.get(rule.inference, {}).get(metric or rule.metric)


def whose(rule: Accuracy, population: str, makes_models: bool) -> str:
    """Return whose models are scored, ``personal`` or ``global``.

    Args:
        rule: the run's accuracy rule.
        population: ``domains`` or ``clients``.
        makes_models: whether a plugin of the run makes models of the clients' own.
    """
    auto = rule.model == "auto" and rule.population == "domains"
    own = population == "clients" or auto or rule.model == "personal"
    return "personal" if makes_models and own else "global"


def views(
    history: Sequence[RoundResult], rule: Accuracy, metric: str | None = None
) -> list[Scores]:
    """Return `view` of each round that was scored."""
    return [found for one in history if (found := view(one, rule, metric)) is not None]


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


def extra_scores(
    rule: Accuracy, rounds: Sequence[RoundResult], higher_is_better: bool
) -> dict[str, float]:
    """Return the metric on each extra test set, over the rounds that the accuracy rule counts."""
    scored = [one for one in rounds if view(one, rule) is not None]
    chosen = [scored[n] for n in counted(rule, views(scored, rule), higher_is_better)]
    found = [one.extra_scores.get(rule.inference, {}).get(rule.metric, {}) for one in chosen]
    return {
        name: statistics.fmean(float(one[name]) for one in found)  # type: ignore[arg-type]
        for name in (found[-1] if found else {})
    }


def accuracy_text(rule: Accuracy, rounds: int) -> str:
    """Return the rule in words, as printed beside every number; the metric is named there too."""
    used = min(rule.k, rounds)
    words = {
        "last": "last round",
        "last_k": "last round" if used == 1 else f"mean of the last {used} rounds",
        "best": "best round on test data",
    }[rule.rule]
    inference = "" if rule.inference == "classifier" else f", {rule.inference} inference"
    over = ", mean over clients" if rule.population == "clients" else ""
    split = ", validation data" if rule.split == "validation" else ""
    return words.replace("test data", f"{rule.split} data") + inference + over + split


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


def reaches(value: float, target: float, higher_is_better: bool) -> bool:
    """Return whether a metric's value is at least as good as a target.

    Means over domains are rounded, so that a value counts when it misses by no more than that.
    """
    passed = value > target if higher_is_better else value < target
    return passed or math.isclose(value, target, rel_tol=1e-12)


def out_of_time(config: RunConfig, now: float | None) -> bool:
    """Return whether a run ends with a round that ends at virtual time ``now``."""
    return config.stop_time is not None and (now or 0.0) >= config.stop_time


def stops(config: RunConfig, history: Sequence[RoundResult], higher_is_better: bool) -> bool:
    """Return whether a run ends with the last of its rounds so far: see `config.stopping`.

    Args:
        config: the run's config.
        history: the rounds so far.
        higher_is_better: of the reported metric.
    """
    if not history:
        return False
    return out_of_time(config, history[-1].time) or reached(config, history, higher_is_better)


def reached(config: RunConfig, history: Sequence[RoundResult], higher_is_better: bool) -> bool:
    """Return whether the last of the rounds so far, at least one, has reached ``stop_at``."""
    if config.stop_at is None:
        return False
    found = view(history[-1], config.accuracy)
    if found is None or found.mean is None:
        return False
    return reaches(found.mean, config.stop_at, higher_is_better)


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
    if rule.population == "clients":
        parts = zip(*((s.mean, s.worst, s.std) for s in chosen), strict=True)
        return Scores({}, *(statistics.fmean(part) for part in parts))
    domains: dict[str, Any] = {
        name: statistics.fmean(float(s.domains[name]) for s in chosen)  # type: ignore[arg-type]
        for name in chosen[-1].domains
    }
    return over_domains(domains, higher_is_better)
