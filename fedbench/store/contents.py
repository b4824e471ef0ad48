"""The contents of a run directory's files, as types; `fedbench.store.reading` reads them.

Rounds are `fedbench.types.RoundResult`. Keys that only a newer version knows are ignored; keys that
earlier versions did not write have a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from .files import json_ready


@dataclass(frozen=True)
class Reported:
    """A run's accuracy, computed from its rounds by its rule.

    Args:
        rule: which rounds count, in words.
        metric: the metric's name.
        inference: the inference rule's name.
        mean: the unweighted mean over domains.
        worst: the value of the worst domain.
        std: the population standard deviation over domains.
        domains: the value of each domain; empty over clients.
        population: ``domains``, or ``clients``: then the mean is by examples, and the worst is the
            mean over the worst tenth of the clients.
        split: ``test`` or ``validation``.
        model: whose models were scored, ``global`` or ``personal``.
        plain: over clients, the mean in which each client counts once; else ``None``.
    """

    rule: str
    metric: str
    inference: str
    mean: float
    worst: float
    std: float
    domains: Mapping[str, float]
    population: str = "domains"
    split: str = "test"
    model: str = "global"
    plain: float | None = None


@dataclass(frozen=True)
class Sent:
    """Bytes per round by key: the sum over clients, averaged over rounds."""

    up: Mapping[str, float]
    down: Mapping[str, float]


@dataclass(frozen=True)
class StopAt:
    """The value of the reported metric that ends a run, and whether the run reached it."""

    value: float
    reached: bool


@dataclass(frozen=True)
class VirtualTime:
    """What a run took under a clock.

    Args:
        seconds: when the last round ended, in virtual seconds.
        turns: how many turns were ``used``, ``failed`` and ``dropped``.
        utilisation: how long clients were at work in these turns, as a share of the time that as
            many clients had as were ever at work together.
        staleness: how many of the turns that were used are 0, 1, ... rounds late.
    """

    seconds: float
    turns: Mapping[str, int]
    utilisation: float
    staleness: Mapping[int, int]


@dataclass(frozen=True)
class Personal:
    """What the clients' own models cost: seconds in all, bytes per round by key."""

    seconds: float
    bytes: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The contents of ``result.json``, in its order; accuracies are fractions.

    Args:
        method: the method's name.
        changes: what differs from the method, as `fedbench.config.changes` describes it.
        data: the data set's name.
        model: the model's name.
        seed: the run's seed.
        rounds: how many rounds were run.
        accuracy: by the run's rule.
        bytes: how much was sent.
        failures: the number of failures of each kind, and ``lost``; empty when nothing failed.
        seconds: wall-clock time of all rounds.
        weights_sha256: of the final weights.
        metrics_sha256: of all rounds, without their times.
        card: the protocol card's name and hash; empty without a card.
        config_hash: of the resolved config.
        versions: of Python and the packages that the result depends on.
        others: the same rule on the other populations and splits that were scored.
        extra: extra test set -> the metric on it, by the run's rule; it enters no accuracy.
        personal: seconds and bytes per round of making and scoring the clients' own models.
        personal_sha256: of the clients' own models, where they were kept.
        conclusions: what plugins say about the run as a whole, a sentence each.
        stop_at: what would end the run; ``None`` for a run without it.
        virtual_time: what the run took under a clock; ``None`` without one.
        in_memory: plugins that were classes in memory; if any, the config alone repeats no run.
    """

    method: str
    changes: Sequence[str]
    data: str
    model: str | None = None
    seed: int
    rounds: int
    accuracy: Reported
    bytes: Sent
    failures: Mapping[str, int] | None = None
    seconds: float
    weights_sha256: str
    metrics_sha256: str
    card: Mapping[str, str] | None = None
    config_hash: str | None = None
    versions: Mapping[str, str] | None = None
    others: Sequence[Reported] = ()
    extra: Mapping[str, float] | None = None
    personal: Personal | None = None
    personal_sha256: str | None = None
    conclusions: Sequence[str] = ()
    stop_at: StopAt | None = None
    virtual_time: VirtualTime | None = None
    in_memory: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plain data that the file holds."""
        plain: dict[str, Any] = json_ready(self)
        return plain


@dataclass(frozen=True)
class Partition:
    """The contents of ``partition.json``: how many examples of what each client has.

    Args:
        classes: the names of the data set's classes.
        domains: the names of its domains.
        counts: client -> domain -> number of examples per class; empty domains are omitted.
    """

    classes: Sequence[str]
    domains: Sequence[str]
    counts: Mapping[int, Mapping[str, Sequence[int]]]


@dataclass(frozen=True)
class Interrupted:
    """The contents of ``interrupted.json``: the machine, not the method, ended an unfinished run.

    Args:
        times: how often that has happened in comparisons.
        reason: what happened the last time.
    """

    times: Annotated[int, Field(ge=1)]
    reason: str

    def __str__(self) -> str:
        return self.reason if self.times == 1 else f"{self.reason} (interrupted {self.times} times)"


@dataclass(frozen=True)
class Git:
    """The git repository around the working directory: the commit that is checked out."""

    commit: str


@dataclass(frozen=True)
class Environment:
    """The contents of ``environment.json``: what a result depends on besides its config.

    Args:
        versions: of Python and the packages.
        platform: the operating system.
        processor: the processor's name.
        cores: the number of cores.
        device: the device that the run computed on.
        device_name: the accelerator's name; ``None`` on the CPU.
        threads_per_client: torch's threads in a client's turn.
        git: ``None`` outside a repository.
        config_hash: of the resolved config.
        depends: the fingerprint of everything else that the result depends on, see
            `fedbench.store.fingerprint`; empty for a run of a version that kept none.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    platform: str | None = None
    processor: str | None = None
    cores: int | None = None
    device: str | None = None
    device_name: str | None = None
    threads_per_client: int | None = None
    git: Git | None = None
    config_hash: str | None = None
    depends: Mapping[str, str] = field(default_factory=dict)
