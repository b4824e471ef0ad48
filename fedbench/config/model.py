"""The config of a run, `RunConfig`, and its parts: every value that the run depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from .. import options
from . import yamlfile


def digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON-like data, for which the order of ``plugins`` counts."""
    plain = {**data, "plugins": list(data.get("plugins", {}).items())}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The accuracy rule: how one number per domain is computed from the rounds.

    ``last`` takes the last round, ``last_k`` the mean of the last ``k`` rounds, and ``best`` the
    round with the best mean over domains, which selects the round on test data.
    """

    metric: Annotated[str, Field(description="the metric that is reported")] = "accuracy"
    rule: Annotated[Literal["last", "last_k", "best"], Field(description="which rounds count")] = (
        "last_k"
    )
    k: Annotated[int, Field(ge=1, description="how many rounds last_k averages")] = 5
    inference: Annotated[
        str, Field(description="how predictions are made: classifier, or a plugin's rule by name")
    ] = "classifier"
    population: Annotated[
        Literal["domains", "clients"],
        Field(
            description="what the number is a mean over: domains, each on its data, or clients, "
            "each with its own model on the data that it holds out"
        ),
    ] = "domains"
    split: Annotated[
        Literal["test", "validation"], Field(description="the data that is scored")
    ] = "test"
    model: Annotated[
        Literal["auto", "personal", "global"],
        Field(
            description="what is scored on domains: the clients' own models, the global one, or "
            "(auto) their own if the method makes them and the population is domains"
        ),
    ] = "auto"


@dataclass(frozen=True, eq=False)
class Failures:
    """The failure policy: what happens when a client's turn raises an error.

    ``fail`` ends the run. ``skip`` continues the round without the client. ``retry`` runs the turn
    again, up to ``attempts`` times in all, and then continues without the client.
    """

    policy: Annotated[
        Literal["fail", "skip", "retry"], Field(description="what happens when a client fails")
    ] = "fail"
    attempts: Annotated[
        int, Field(ge=2, description="with retry, how often a turn is tried in all")
    ] = 3
    min_clients: Annotated[
        int, Field(ge=1, description="the run ends when fewer clients are left in a round")
    ] = 1


@dataclass(frozen=True, eq=False)
class Clients:
    """What each client holds out of its examples, before anything else, stratified by class.

    ``own`` test data is held out as well; ``matched`` test data is drawn from the test set, to the
    client's class and domain shares, and the client trains on all that it has.
    """

    validation: Annotated[
        float, Field(ge=0, lt=1, description="share of a client's examples held out")
    ] = 0.0
    test: Annotated[
        float, Field(ge=0, lt=1, description="share of a client's examples it is tested on")
    ] = 0.0
    test_from: Annotated[
        Literal["own", "matched"], Field(description="where clients' test data comes from")
    ] = "own"


@dataclass(frozen=True, eq=False, kw_only=True)
class RunConfig:
    """Everything that a run depends on. Build one with `resolve` or `load_config`.

    The fields are the keys of a config file, in the order of the file. Every field counts towards
    `hash` except those in `NOT_HASHED`, which states why.
    """

    method: Annotated[str, Field(description="a label for tables", min_length=1)] = "custom"
    data: Annotated[dict[str, Any], Field(description="data set: name and options")]
    model: Annotated[dict[str, Any], Field(description="model: name and options")]
    seed: Annotated[int, Field(ge=0, lt=2**63, description="seed of every random stream")] = 0
    rounds: Annotated[int, Field(ge=1, lt=2**31, description="communication rounds")] = 20
    device: Annotated[str, Field(description="cpu, cuda, cuda:1, mps")] = "cpu"
    precision: Annotated[
        Literal["fp32", "bf16"],
        Field(description="of the forward pass; bf16 uses autocast: weights and sums stay fp32"),
    ] = "fp32"
    executor: Annotated[
        dict[str, Any], Field(description="where clients run: name and options")
    ] = field(default_factory=lambda: {"name": "pool"})
    failures: Annotated[Failures, Field(description="what happens when a client fails")] = field(
        default_factory=Failures
    )
    clients: Annotated[
        Clients, Field(description="what each client holds out for validation and tests")
    ] = field(default_factory=Clients)
    evaluate_every: Annotated[
        int, Field(ge=1, description="score every so many rounds, and the last one")
    ] = 1
    accuracy: Annotated[Accuracy, Field(description="the accuracy rule")] = field(
        default_factory=Accuracy
    )
    stop_at: Annotated[
        float | None,
        Field(
            allow_inf_nan=False,
            description="end the run after the first scored round whose reported metric, by "
            "population, split and inference rule, is at least this good",
        ),
    ] = None
    stop_time: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="end the run after the first round that ends at this virtual time, in "
            "seconds, or later; only with a clock",
        ),
    ] = None
    metrics: Annotated[
        dict[str, dict[str, Any]], Field(description="metrics on test data: name -> options")
    ] = field(default_factory=lambda: {"accuracy": {}, "loss": {}, "class_accuracy": {}})
    plugins: Annotated[
        dict[str, dict[str, Any]], Field(description="run plugins in order: name -> options")
    ]
    origin: Annotated[
        dict[str, str],
        Field(description="where the values came from: recipe, card, card_hash, in_memory"),
    ] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as JSON-like data in the order of the YAML file."""
        return options.dump(self)

    def to_yaml(self) -> str:
        """Return the config as YAML that `load_config` reads back."""
        return yamlfile.dump(self.to_dict())

    @cached_property
    def hash(self) -> str:
        """The SHA-256 over all that the result depends on: every key except those in `NOT_HASHED`.

        A key in `LATER` counts only when its value is not the default, so that runs of earlier
        versions keep their hashes.
        """
        data = {k: v for k, v in self.to_dict().items() if k not in NOT_HASHED}
        return digest({k: v for k, v in data.items() if k not in LATER or v != LATER[k]})

    @property
    def in_memory(self) -> tuple[str, ...]:
        """The plugins that were classes in memory, so that the config alone repeats no run."""
        return tuple(filter(None, self.origin.get("in_memory", "").split(", ")))

    @property
    def data_name(self) -> str:
        """The data set's name."""
        return str(self.data["name"])


KEYS = tuple(f.name for f in fields(RunConfig))
"""The keys of a resolved config, in the order of its YAML file."""

NOT_HASHED: Mapping[str, str] = {
    "method": "a label, which changes no number",
    "executor": "every executor produces the same bits",
    "origin": "states where the values came from; the values themselves count",
}
"""Key -> why the result does not depend on it."""

LATER: Mapping[str, Any] = {
    "precision": "fp32",
    "failures": options.dump(Failures()),
    "clients": options.dump(Clients()),
    "evaluate_every": 1,
    "stop_at": None,
    "stop_time": None,
}
"""Keys that were added after version 0.1, with their defaults; see `RunConfig.hash`."""
