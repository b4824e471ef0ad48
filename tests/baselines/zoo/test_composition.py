"""Which methods and plugins go together: each pair runs, or is refused before it with the reason.

Methods and plugins come from the registry, so a new one enters by itself. A pair is a method and
one more plugin, as in ``fedbench run METHOD --with PLUGIN``; what cannot go together is derived
from what the plugins state: their conflicts, their requirements, and their single hooks. Every pair
is made, and those of one method of each family run for two rounds.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedbench import ConfigError, Run, discover, hookimpl, resolve
from fedbench.codec import Codec
from fedbench.hookspecs import OBSERVERS
from fedbench.plugins.facts import PluginFacts, facts
from fedbench.plugins.hooks import conflict
from fedbench.plugins.replacing import bases
from fedbench.values import sha256

REGISTRY = discover()
DATA = {"prepare_data", "partition", "client_data", "transform", "select_clients"}
"""Hooks of what data a run has and who takes part, with which every method goes."""

METHODS: dict[str, Mapping[str, Any]] = {e.name: e.value.plugins for e in REGISTRY.all("recipe")}
CLASSES: dict[str, type] = {entry.name: entry.value for entry in REGISTRY.all("plugin")}
PLUGINS = [e.name for e in REGISTRY.all("plugin") if set(e.hooks) - DATA - OBSERVERS]

QUICK = {"fedtgp": {"server_epochs": 2}, "deadline": {"seconds": 0.3}}
QUICK["soft_deadline"] = QUICK["deadline"]
"""Options of plugins whose server trains for long, and those without a default."""

CARD = """
card: tiny
version: 1
title: six clients of a tiny data set
config:
  data: {name: tiny}
  model: {name: tiny_model}
  rounds: 2
  executor: {name: inline}
  plugins:
    domains: {clients_per_domain: 3}
    normalize: {}
    uniform: {}
    sgd: {epochs: 1, batch_size: 8, lr: 0.05}
reasons: {}
"""


def having(role: str) -> list[str]:
    """Return the plugins that state a role."""
    return [name for name in PLUGINS if role in facts(PluginFacts, CLASSES[name]).roles]


def of(*families: str) -> list[str]:
    """Return the methods of some families."""
    return [entry.name for family in families for entry in REGISTRY.families()[family]]


def added(*families: str) -> list[str]:
    """Return the plugins that the methods of some families add to FedAvg's."""
    plugins = {name: None for method in of(*families) for name in METHODS[method]}
    return [name for name in plugins if name not in METHODS["fedavg"]]


STEPS, AGGREGATORS, LOSSES = map(having, ("server step", "robust mean", "classification loss"))
PERSONAL, ADAPTIVE, ATTACKS = map(having, ("personal model", "adaptive trainer", "attack"))
CODECS = [n for n in PLUGINS if issubclass(CLASSES[n], Codec)]
FAIR, ALONE = added("fairness"), having("no exchange")


def pairs() -> Iterator[tuple[str, str]]:
    """Yield every method with every plugin that it lacks; no two pairs are the same plugins."""
    seen = {frozenset(own) for own in METHODS.values()}
    for method, plugin in itertools.product(METHODS, PLUGINS):
        both = frozenset({*METHODS[method], plugin})
        if both not in seen:
            seen.add(both)
            yield method, plugin


def stated(one: str, other: str) -> str | None:
    """Return the reason that one of two plugins states against the other."""
    return conflict(CLASSES[one], other, CLASSES[other]) or conflict(
        CLASSES[other], one, CLASSES[one]
    )


def reasons(method: str, plugin: str) -> list[str]:
    """Return texts, of which one must be in the refusal; none if the pair must run."""
    own = METHODS[method]
    found = [why for name in own if (why := stated(name, plugin))]
    needed = set(facts(PluginFacts, CLASSES[plugin]).requires) - {*own, "uniform"}
    found += [f"plugin {plugin!r} needs {name!r}" for name in sorted(needed)]
    for name in own:
        if bases(CLASSES[name]) & bases(CLASSES[plugin]):
            found.append(f"would take the place of {name!r}")
    return found


@pytest.fixture
def composed(registry, tmp_path) -> Callable[..., Run]:
    """Return a function that makes a run as the command line does: a method and more plugins."""
    card = tmp_path / "tiny.yaml"
    card.write_text(CARD, encoding="utf-8")
    registry.add(SimpleNamespace(register_cards=hookimpl(register_cards(card))), "tests")

    def made(method: str, *plus: str, without: Any = (), **options: Mapping[str, Any]) -> Run:
        if any("schedule" in bases(CLASSES[n]) for n in plus) and not clocks(METHODS[method]):
            plus = (*plus, "lognormal")
        names = {*METHODS[method], *plus}
        given = {name: quick for name, quick in QUICK.items() if name in names} | options
        # No epsilon can be claimed for batch norm that is averaged; FedBN needs it, and keeps it.
        sets = ["model.norm=none"] if "dp" in names and "fedbn" not in names else []
        for plugin, values in given.items():
            sets += [f"{plugin}.{option}={text(value)}" for option, value in values.items()]
        config = resolve(registry, method, card="tiny", plus=plus, sets=sets, without=without)
        return Run(config, registry=registry)

    return made


def register_cards(card: Any) -> Callable[[], Mapping[str, Any]]:
    def register_cards() -> Mapping[str, Any]:
        return {"tiny": card}

    return register_cards


def clocks(names: Iterable[str]) -> list[str]:
    return [name for name in names if "duration" in bases(CLASSES[name])]


def text(value: Any) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value).lower()


def finished(run: Run) -> Run:
    assert len(list(run.rounds())) == run.config.rounds
    return run


def weights(run: Run) -> Mapping[str, Tensor]:
    assert run.state is not None
    return run.state.weights


def uploaded(run: Run) -> list[str]:
    """Return the keys that clients upload in any round."""
    return sorted({key for result in finished(run).history for key in result.bytes_up})


def naming(composed: Callable[..., Run], method: str, plugin: str) -> dict[str, Any]:
    """Return the options of a pair that name uploads, where the defaults name others."""
    own = set(METHODS[method])
    if "dp" in own:
        return {"dp": {"bounds": dict.fromkeys(uploaded(composed("fedavg", plugin)), 1.0)}}
    if plugin == "dp":
        return {"dp": {"bounds": dict.fromkeys(uploaded(composed(method)), 1.0)}}
    if plugin in CODECS and own & {*ALONE}:
        keys = uploaded(composed(method))
        return {plugin: {"keys": keys}} if keys else {}
    return {}


def refusal(composed: Callable[..., Run], method: str, *plus: str, **more: Any) -> str:
    """Return with which words plugins are refused before the run; nothing if they are not."""
    try:
        composed(method, *plus, **more)
    except ConfigError as error:
        return str(error)
    return ""


# --- all pairs -----------------------------------------------------------------------------------


PAIRS = list(pairs())
RUN = {entries[0].name for entries in REGISTRY.families().values()} | {"fedhpro", "scaffold"}
"""Methods whose pairs are carried out; those of all others are made, which is where they fail."""

UNFIT = r"no plugin uploads '\w+'; uploaded are no values|needs at least \d+ clients"
"""What a plugin says at the start of a run about uploads and clients, which no plugin states."""


@pytest.mark.long
@pytest.mark.parametrize(("method", "plugin"), PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_a_pair_runs_or_is_refused_before_the_run_with_the_reason(method, plugin, composed):
    refused = ""
    try:
        run = composed(method, plugin)
    except ConfigError as error:
        refused = str(error)
    if refused:
        assert any(why in refused for why in reasons(method, plugin)), refused
        return
    if method not in RUN:
        return
    if options := naming(composed, method, plugin):
        run = composed(method, plugin, **options)
    try:
        finished(run)
    except ConfigError as error:
        if re.search(UNFIT, str(error)):
            return
        raise
    assert plugin in run.config.plugins
    assert all(bool(torch.isfinite(value).all()) for value in weights(run).values())


@pytest.mark.long
@pytest.mark.parametrize("method", [m for m in of("prototypes") if "exchange" in METHODS[m]])
def test_a_prototype_method_takes_what_touches_one_key(method, composed):
    """Server optimisers, robust aggregators, clipping, noise, compression and attacks."""
    families = ("server optimisers", "robust aggregation", "privacy")
    several = [plugin for plugin in METHODS[method] if stated("dp", plugin)]
    for plugin in {*added(*families), *CODECS, *ATTACKS} - ({"dp"} if several else set()):
        assert refusal(composed, method, plugin) == ""


# --- what does not go together -------------------------------------------------------------------

TABLE = {
    "each defines the server step": (STEPS, STEPS),
    "division by the learning rate": (["fednova", "qfedavg", "apfl"], ADAPTIVE),
    "two rules for one mean": (AGGREGATORS, ["fednova", "feddyn", *FAIR, "dp"]),
    "each is the classification loss": (LOSSES, LOSSES),
    "one rule for the test model": (PERSONAL, PERSONAL),
    "noise hides one row of a class in every round": (["dp"], ["ccvr", "fedplvm", *FAIR]),
    "a classifier that is fixed": (["fedrep"], having("fixed classifier")),
    "the gradient of a step, and what it lacks": (having("gradient anew"), ["scaffold"]),
    "one gradient of a step": (having("gradient anew"), having("gradient anew")),
    "the extractor that clients receive": (["ccvr"], having("start ahead")),
    "each client's own update": (["dp"], ["fedexp", *having("colluding attack")]),
    "no weights travel": (ALONE, ["exchange", *STEPS, *AGGREGATORS, "ccvr", "dp"]),
}
"""Row -> plugins, none of which goes with any of the others."""


def test_the_table_s_rows_have_those_that_it_names():
    assert {"scaffold", "fednova", "feddyn", *added("server optimisers")} <= {*STEPS}
    assert {*added("robust aggregation"), *FAIR, "sign_majority"} == {*AGGREGATORS}
    assert {"fedlc", "fedrs", "balanced_softmax", "fedproc", "fednh", "cross_entropy"} == {*LOSSES}
    assert {"fedbn", "fedper", "fedrep", "fedbabu", "ditto", "apfl", "pfedme"} < {*PERSONAL}
    assert {"adam", "adamw"} < {*ADAPTIVE}
    assert {"personal"} == {*ALONE}
    assert having("gradient anew") == ["fedasam", "fedsam"]
    assert having("start ahead") == ["fedacg", "fedexp"]
    assert len(ATTACKS) == 6
    assert having("colluding attack") == ["alie", "ipm"]


@pytest.mark.parametrize("row", TABLE)
def test_what_does_not_go_together_is_refused_before_the_run(row, composed):
    for one, other in sorted({tuple(sorted(pair)) for pair in itertools.product(*TABLE[row])}):
        if one == other:
            continue
        pair = {one, other}
        plus = [name for name in (one, other) if name not in METHODS["fedavg"]]
        aside = [*(["exchange"] if pair & {*ALONE} else []), *(LOSSES if pair & {*LOSSES} else [])]
        without = ({*aside} & {*METHODS["fedavg"]}) - pair
        refused = refusal(composed, "fedavg", *plus, without=sorted(without))
        rival = bases(CLASSES[one]) & bases(CLASSES[other])
        why = "implements" if rival else f"cannot be in the same run: {stated(one, other)}"
        assert why in refused, f"{one}+{other}: {refused}"
        assert all(name in refused for name in pair)


@pytest.mark.parametrize("method", [m for m in METHODS if {*ALONE} & {*METHODS[m]}])
@pytest.mark.parametrize("attack", ATTACKS)
def test_only_an_attack_on_data_goes_without_weights(attack, method, composed):
    hooks = {*REGISTRY.get("plugin", attack).hooks}
    on_data = not hooks & {"send_uploads", "receive_uploads"}
    assert ("none travel" in refusal(composed, method, attack)) != on_data


# --- on the command line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "plus", "replaced"),
    [
        ("fedhpro", ["fedadam"], []),
        ("fedproto", ["topk", "krum"], ["mean"]),
        ("fedper", ["fedyogi", "qsgd"], []),
        ("fedtgp", ["adam", "signsgd", "median", "ipm"], ["mean", "sgd"]),
        # Weights that arrive in part, and passes outside of a turn:
        ("fedper", ["sign_flip"], []),
        ("fedbn", ["fednova"], ["mean"]),
        ("fedavg-ft", ["feddyn"], []),
        ("fedrep", ["fedacg"], []),
        ("fedhpro", ["fine_tuning"], []),
    ],
)
def test_several_go_together_each_in_its_place(method, plus, replaced, composed):
    run = finished(composed(method, *plus))
    names = list(run.config.plugins)
    assert [name for name in (*METHODS[method], "sgd") if name not in names] == replaced
    outermost = [name for name in names if facts(PluginFacts, CLASSES[name]).outermost]
    assert names[: len(outermost)] == outermost
    assert {*plus} < {*names}


# --- identities ----------------------------------------------------------------------------------

SENDING = [m for m in METHODS if "mean" in METHODS[m]]


@pytest.mark.long
@pytest.mark.parametrize("method", [m for m in SENDING if not {*STEPS} & {*METHODS[m]}])
def test_a_server_step_at_rate_one_without_momentum_changes_no_bit(method, composed):
    same = composed(method, "fedavgm", fedavgm={"lr": 1.0, "momentum": 0.0})
    assert sha256(weights(finished(same))) == sha256(weights(finished(composed(method))))


@pytest.mark.long
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("method", ["fedhpro", "fedproto", "fedper", "scaffold"])
def test_an_attack_without_malicious_clients_changes_no_bit(attack, method, composed):
    same = composed(method, attack, **{attack: {"clients": []}})
    assert sha256(weights(finished(same))) == sha256(weights(finished(composed(method))))


@pytest.mark.long
@pytest.mark.parametrize("method", SENDING)
def test_sending_all_entries_is_sending_the_weights(method, composed):
    coded, plain = (
        finished(composed(method, "topk", topk={"ratio": 1.0})),
        finished(composed(method)),
    )
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(coded)[name], value, rtol=1e-3, atol=1e-5)
