"""A run's result, made of its rounds: what ``result.json`` holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from ..config.changes import describe_changes
from ..config.model import Accuracy, RunConfig
from ..plugins.registry import Registry
from ..splits import SPLITS
from ..store.contents import Personal, Reported, Result, Sent, StopAt
from ..store.environment import versions
from ..types import RoundResult, Weights, sha256
from .evaluation import (
    accuracy_text,
    client_view,
    counted,
    extra_scores,
    reached,
    reported,
    views,
    whose,
)
from .totals import count_failures, metrics_sha256, per_round, virtual_time


def summarise(
    registry: Registry,
    config: RunConfig,
    rounds: Sequence[RoundResult],
    weights: Weights,
    higher_is_better: bool,
) -> Result:
    """Return the result of a run.

    Args:
        registry: what is installed.
        config: the run's config.
        rounds: its rounds, at least one of them scored.
        weights: the global model after the last one.
        higher_is_better: of the metric that its accuracy rule is about.
    """
    makes_models = any("personalize" in registry.get("plugin", p).hooks for p in config.plugins)
    reports = list(_reports(config.accuracy, rounds, higher_is_better, makes_models))
    asked = config.accuracy.population, config.accuracy.split
    card = {k.removeprefix("card_"): v for k, v in config.origin.items() if "card" in k}
    return Result(
        method=config.method,
        changes=describe_changes(registry, config),
        data=config.data_name,
        model=config.model["name"],
        seed=config.seed,
        rounds=len(rounds),
        accuracy=next(r for r in reports if (r.population, r.split) == asked),
        bytes=Sent(
            up=per_round([r.bytes_up for r in rounds]),
            down=per_round([r.bytes_down for r in rounds]),
        ),
        failures=count_failures(rounds),
        seconds=sum(r.seconds for r in rounds),
        weights_sha256=sha256(dict(weights)),
        metrics_sha256=metrics_sha256(rounds),
        card=card,
        config_hash=config.hash,
        versions=versions(),
        others=[r for r in reports if (r.population, r.split) != asked],
        extra=extra_scores(config.accuracy, rounds, higher_is_better) or None,
        personal=_personal(rounds),
        stop_at=_stop_at(config, rounds, higher_is_better),
        virtual_time=virtual_time(rounds),
        in_memory=list(config.in_memory),
    )


def _reports(
    rule: Accuracy, rounds: Sequence[RoundResult], higher_is_better: bool, makes_models: bool
) -> Iterator[Reported]:
    """Yield the rule's number for every population and split that was scored."""
    for split in SPLITS:
        for population in ("domains", "clients"):
            one = replace(rule, population=population, split=split)
            found = views(rounds, one)
            if not found and (population, split) != (rule.population, rule.split):
                continue
            yield Reported(
                rule=accuracy_text(one, len(found)),
                metric=one.metric,
                inference=one.inference,
                population=population,
                split=split,
                model=whose(rule, population, makes_models),
                plain=_plain(one, rounds, higher_is_better),
                **vars(reported(one, found, higher_is_better)),
            )


def _plain(rule: Accuracy, rounds: Sequence[RoundResult], higher_is_better: bool) -> float | None:
    """Return the rule's mean over clients, each counting once; ``None`` over domains."""
    if rule.population == "domains":
        return None
    means = [found.plain for one in rounds if (found := client_view(one, rule))]
    return fmean(means[n] for n in counted(rule, views(rounds, rule), higher_is_better))


def _stop_at(
    config: RunConfig, rounds: Sequence[RoundResult], higher_is_better: bool
) -> StopAt | None:
    if config.stop_at is None:
        return None
    return StopAt(config.stop_at, reached(config, rounds, higher_is_better))


def _personal(rounds: Sequence[RoundResult]) -> Personal | None:
    seconds = sum(one.personal_seconds for one in rounds)
    sent = per_round([one.personal_bytes for one in rounds])
    return Personal(seconds, sent) if seconds else None
