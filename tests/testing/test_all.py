"""Everything that is registered keeps the rules that third-party plugins must keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fedbench import testing
from fedbench.plugins.discovery import discover

REGISTRY = discover()
OPTIONS: dict[str, dict[str, Any]] = {
    "biased": {"one_class_clients": 3, "all_class_clients": 2},
    "deadline": {"seconds": 20.0},
    "soft_deadline": {"seconds": 20.0},
    "leave_out": {"domain": "chalk"},
    "long_tail": {"rho": 4.0},
    "resnet18": {"filters": 4},
    "char_lstm": {"vocabulary": 256, "feature_size": 8},
    "torchvision": {"architecture": "squeezenet1_1"},
    "timm": {"architecture": "test_convnext"},
}
"""Options that the tiny data needs, or that have no default."""

MODELS: dict[str, dict[str, Any]] = {"dp": {"norm": "none"}, "dp-fedavg": {"norm": "none"}}
"""Options of the kit's model, for what refuses batch norm."""

LOUD = {"tensorboard", "mlflow", "wandb", "afl"}
"""Plugins that warn: their external packages do, or they are made for rounds with all clients."""

SLOW = {"one-worker", "two-workers", "further-pass", "failing-client"}
"""Rules of several runs or processes; without ``-m long`` only methods are tested with them."""

APART = pytest.mark.skip(
    reason="each rule would start a Ray cluster; tests/executors/test_ray.py checks it on one"
)


def representatives() -> set[tuple[str, str]]:
    """Return (kind, name) of the methods and plugins that are tested without ``-m long``, too.

    Of the methods one that averages, one that waits for nobody, one with models of the clients' own
    and FedHPro, with FedHPro's plugins; of the plugins that belong to no method, one for each set
    of hooks.
    """
    methods = {entry.name: entry.value.plugins for entry in REGISTRY.all("recipe")}
    rest = {*REGISTRY.names("plugin")} - set().union(*methods.values())
    by_hooks = {tuple(REGISTRY.get("plugin", n).hooks): n for n in sorted(rest, reverse=True)}
    plugins = [*by_hooks.values(), *methods["fedhpro"]]
    some = ("fedavg", "fedasync", "fedproto-aaai", "fedhpro")
    return {("method", n) for n in some} | {("plugin", n) for n in plugins}


def cases() -> Iterator[Any]:
    kept = representatives()
    for kind in ("method", "plugin", "dataset", "model", "metric", "executor"):
        for entry in REGISTRY.all("recipe" if kind == "method" else kind):
            options = OPTIONS.get(entry.name)
            marks = [pytest.mark.filterwarnings("ignore")] if entry.name in LOUD else []
            if kind in ("method", "plugin") and (kind, entry.name) not in kept:
                marks.append(pytest.mark.long)
            marks += [APART] if (kind, entry.name) == ("executor", "ray") else []
            model = MODELS.get(entry.name)
            for rule in testing.rules(kind, entry.name, REGISTRY, options=options, model=model):
                slow = [pytest.mark.long] if kind == "plugin" and str(rule) in SLOW else []
                yield pytest.param(rule, id=f"{kind}-{entry.name}-{rule}", marks=marks + slow)


def stale() -> Iterator[Any]:
    """Yield the rules for a plugin that replaces the received payload with another one."""
    for rule in testing.rules("plugin", "faults", REGISTRY, options={"stale": 0.5}):
        yield pytest.param(rule, id=f"plugin-faults-stale-{rule}")


def norms() -> Iterator[Any]:
    """Yield the rules for a residual network with each norm but the default."""
    for norm in ("group", "none"):
        options = {"filters": 4, "norm": norm}
        for rule in testing.rules("model", "resnet10", REGISTRY, options=options):
            yield pytest.param(rule, id=f"model-resnet10-{norm}-{rule}")


@pytest.mark.parametrize("rule", [*cases(), *stale(), *norms()])
def test_conformance(rule: testing.Rule) -> None:
    rule.check()


def test_what_the_lists_above_name_exists() -> None:
    assert {str(rule) for rule in testing.rules("plugin", "hpcl", REGISTRY)} >= SLOW
    kinds = ("recipe", "plugin", "dataset", "model")
    known = {entry.name for kind in kinds for entry in REGISTRY.all(kind)}
    assert {*OPTIONS, *MODELS, *LOUD} <= known
