"""Scores of one round: a metric over domains, and a metric over clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Score: TypeAlias = float | list[float | None]
"""A metric on one domain: a number, or one per class, ``None`` for a class that has none."""


@dataclass(frozen=True)
class Scores:
    """One metric on the test data: a value per domain and, for scalars, a summary over domains.

    ``mean`` is the unweighted mean over domains, ``worst`` the worst domain, ``std`` the population
    standard deviation over domains. Metrics with a value per class have lists and no summary; a
    class without a value is ``None``.
    """

    domains: Mapping[str, Score]
    mean: float | None = None
    worst: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class ClientScores:
    """One metric over the clients, each scored with its own model on its own held-out data.

    Args:
        mean: over clients, weighted by their held-out examples.
        plain: the mean over clients, each counting once.
        std: the population standard deviation over clients.
        worst_tenth: the mean over the worst tenth of the clients, at least one.
        clients: client id -> its value; left out where there are more than `CLIENTS_KEPT`.
    """

    mean: float
    plain: float
    std: float
    worst_tenth: float
    clients: Mapping[int, float] = field(default_factory=dict)


CLIENTS_KEPT = 1000
"""A round keeps the score of every client of a run that scores at most so many."""


@dataclass(frozen=True)
class SplitScores:
    """Scores on one split: over domains and over clients, each rule -> metric -> scores."""

    domains: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)
    clients: Mapping[str, Mapping[str, ClientScores]] = field(default_factory=dict)
