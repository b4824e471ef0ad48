"""What ends a run before its last round: the keys ``stop_at`` and ``stop_time``, and targets.

``stop_at``, a value of the reported metric, ends a run after the first scored round that reaches
it, and ``stop_time`` after the first round that ends at this virtual time or later. Everything
before is as in a run without them: learning rates, and whatever else depends on the number of
rounds, still follow ``rounds``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..plugins.facts import MetricFacts, PluginFacts, facts
from ..plugins.registry import Registry
from .model import RunConfig


def read_flags(flags: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return flags with ``stop_at`` as a number, and the metric that it names.

    It may be given as ``METRIC=VALUE``; `check_metric` compares the metric with the config's.

    Raises:
        ConfigError: when its value is no number.
    """
    given = flags.get("stop_at")
    if not isinstance(given, str):
        return dict(flags), None
    metric, equals, value = given.rpartition("=")
    try:
        return {**flags, "stop_at": float(value)}, metric if equals else None
    except ValueError:
        raise ConfigError(f"--stop-at {given}: write METRIC=VALUE, such as accuracy=0.9") from None


def check_metric(config: RunConfig, metric: str | None) -> None:
    """Check that a metric named with ``stop_at`` is the one that the run reports.

    Raises:
        ConfigError: saying how to report the other one.
    """
    if metric not in (None, config.accuracy.metric):
        raise ConfigError(
            f"--stop-at {metric}={config.stop_at:g}: the run reports {config.accuracy.metric!r}; "
            f"add --set accuracy.metric={metric} to report {metric!r}"
        )


def check_value(registry: Registry, metric: str, value: float | None, where: str) -> None:
    """Check that a value to reach is a fraction where the metric is.

    Args:
        registry: what is installed.
        metric: the reported metric.
        value: the value; ``None`` is none.
        where: how the error begins.

    Raises:
        ConfigError: when it is not, perhaps because it is a percentage.
    """
    unit = facts(MetricFacts, registry.get("metric", metric).value).unit
    if value is not None and unit == "percent" and not 0 <= value <= 1:
        near = f"; write {value / 100:g}" if 1 < value <= 100 else ""
        raise ConfigError(f"{where} {value:g}: {metric} is a fraction from 0 to 1{near}")


def check(registry: Registry, config: RunConfig, key: str, where: str) -> None:
    """Check that a run may end early.

    Args:
        registry: what is installed.
        config: the run's config, whose names are known.
        key: ``stop_at`` or ``stop_time``.
        where: its place.

    Raises:
        ConfigError: for a percentage, a time without a clock, or a plugin that needs the last
            round.
    """
    if getattr(config, key) is None:
        return
    if key == "stop_at":
        check_value(registry, config.accuracy.metric, config.stop_at, f"{where}:")
    elif not any("duration" in registry.get("plugin", name).own_hooks for name in config.plugins):
        every = registry.names("plugin")
        clocks = [n for n in every if "duration" in registry.get("plugin", n).own_hooks]
        raise ConfigError(
            f"{where}: a run without a clock has no virtual time; add one of {', '.join(clocks)}"
        )
    for name in config.plugins:
        if why := facts(PluginFacts, registry.get("plugin", name).value).last_round:
            raise ConfigError(f"{where}: {name} needs the last of the rounds: {why}")
