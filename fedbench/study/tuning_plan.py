"""The plan of a tuning: which options are searched, on which seeds, with which budget.

The search sees validation data only: a share of each client's examples that nobody trains on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..config.model import RunConfig
from ..errors import ConfigError, did_you_mean
from ..plugins.facts import MetricFacts, facts
from ..plugins.registry import Registry
from ..text import Unit
from . import grid as grids
from . import records, spaces
from .grid import Grid
from .search import Budget
from .spaces import Spaces, Values

SHARE = 0.1
"""The share of each client's examples that a search holds out where the card holds out none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Wanted:
    """What to tune, under which protocol, with which budget; a user's words, not resolved yet."""

    methods: Annotated[list[str], Field(min_length=1)]
    data: str | None = None
    card: str | None = None
    seeds: int | list[int] = 5
    search_seeds: int | list[int] = 1
    set: list[str] = field(default_factory=list)
    rounds: Annotated[int | None, Field(ge=1)] = None
    device: str | None = None
    reference: str | None = None
    test: Literal["t", "wilcoxon"] = "t"
    trials: Annotated[int, Field(ge=1)] = 20
    batch: Annotated[int, Field(ge=1)] = 4
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    sampler_seed: Annotated[int, Field(ge=0)] = 0
    prune: bool = False
    set_space: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)

    def grid(self, methods: Sequence[str], seeds: Sequence[int], sets: Sequence[str]) -> Grid:
        """Return the grid of some methods under this protocol."""
        reference = self.reference if self.reference in methods else None
        return Grid(
            methods=list(methods),
            data=[self.data] if self.data else [],
            cards=[self.card] if self.card else [],
            seeds=list(seeds),
            set=[*self.set, *sets],
            rounds=self.rounds,
            device=self.device,
            reference=reference,
            test=self.test,
        )


def wanted(
    given: Mapping[str, Any], giver: str = "command line", file: Path | None = None
) -> Wanted:
    """Return what a user asks for, on top of a YAML file if there is one; see `grid.asked`."""
    return grids.asked(Wanted, file, given, giver)


@dataclass(frozen=True, eq=False)
class Plan:
    """A search and a comparison, before anything is run.

    Args:
        wanted: what the user asked for.
        share: of each client's examples, held out for validation in all runs.
        given: whether the user or the card chose the share.
        search_seeds: seeds of every trial.
        seeds: fresh seeds of the comparison.
        budget: of each method.
        configs: method -> its config with the default options, as in the search.
        spaces: method -> what is searched.
        higher_is_better: of the metric that is searched for.
        unit: of that metric.
    """

    wanted: Wanted
    share: float
    given: bool
    search_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    budget: Budget
    configs: Mapping[str, RunConfig]
    spaces: Mapping[str, Spaces]
    higher_is_better: bool
    unit: Unit

    @property
    def reference(self) -> str:
        """The method that the others are compared with."""
        return self.wanted.reference or self.wanted.methods[-1]

    @property
    def sets(self) -> list[str]:
        """What the runs of the search set besides the user's own values."""
        return ["accuracy.split=validation", f"clients.validation={self.share}"]

    @property
    def final_sets(self) -> list[str]:
        """What the runs of the comparison set besides the user's own values."""
        return ["accuracy.split=test", f"clients.validation={self.share}"]

    @cached_property
    def defaults(self) -> dict[str, Values]:
        """Method -> the values of its searched options without a search."""
        return {
            method: {key: _value(self.configs[method], key) for key in found}
            for method, found in self.spaces.items()
        }

    def most_runs(self) -> int:
        """Return how many runs the search makes at most; with pruning, of as many whole ones."""
        trials = (
            min(self.budget.trials, int(min(spaces.size(s) + 1, 2**31))) if s else 1
            for s in self.spaces.values()
        )
        return len(self.search_seeds) * sum(trials)

    def name(self, method: str, shared: Values) -> str:
        """Return a name of a method's search that another search does not have."""
        what = {
            "config": self.configs[method].hash,
            "spaces": {key: str(space) for key, space in self.spaces[method].items()},
            "shared": spaces.sets(shared),
            "seeds": self.search_seeds,
            "sampler": [self.wanted.sampler, self.wanted.sampler_seed, self.wanted.batch],
            "grid": self.budget.trials if self.wanted.sampler == "grid" else None,
            "prune": self.wanted.prune,
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return f"{method} {digest[:12]}"


def plan(registry: Registry, wanted: Wanted, file: Path | None = None) -> Plan:
    """Resolve what is to be tuned; ``file`` holds search spaces.

    Raises:
        ConfigError: for a name, value or space that cannot be used, seeds that both searches and
            comparison would use, or methods that do not share a setting.
    """
    _refuse_unknown_names(wanted)
    search_seeds, seeds = _seeds(wanted.search_seeds, wanted.seeds)
    methods = list(dict.fromkeys(wanted.methods))
    before = _configs(registry, wanted, methods, seeds, ())
    held = next(iter(before.values())).clients.validation
    share = held or SHARE
    sets = ["accuracy.split=validation", f"clients.validation={share}"]
    configs = _configs(registry, wanted, methods, search_seeds, sets)
    _refuse_other_settings(registry, configs)
    given = spaces.overrides(file, wanted.set_space, methods)
    spaces.refuse_unused(given, configs)
    found = {
        method: spaces.of_method(
            registry, config, method, (*wanted.set, *grids.parse_method(method).sets), given
        )
        for method, config in configs.items()
    }
    first = configs[methods[0]]
    _refuse_unshared(wanted.shared, found)
    metric = facts(MetricFacts, registry.get("metric", first.accuracy.metric).value)
    budget = Budget(
        wanted.trials, first.rounds, len(search_seeds), wanted.prune, first.evaluate_every,
        wanted.batch,
    )  # fmt: skip
    return Plan(
        wanted, share, held > 0, search_seeds, seeds, budget, configs, found,
        metric.higher_is_better, metric.unit,
    )  # fmt: skip


def _configs(
    registry: Registry, wanted: Wanted, methods: Sequence[str], seeds: Sequence[int],
    sets: Sequence[str],
) -> dict[str, RunConfig]:  # fmt: skip
    """Return each method's config under the first of the seeds."""
    found = {}
    for method in methods:
        grid = wanted.grid([method], seeds[:1], sets)
        found[method] = grids.plan(registry, grid, Path())[0].config
    return found


def _seeds(
    search: int | list[int], final: int | list[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the seeds of the search and those of the comparison; a number starts after the others.

    Raises:
        ConfigError: when a seed is in both, or there is none.
    """
    for name, value in (("search_seeds", search), ("seeds", final)):
        if (isinstance(value, int) and value < 1) or value == []:
            raise ConfigError(f"{name}: give at least one seed")
    searched = range(search) if isinstance(search, int) else search
    start = max(searched) + 1
    fresh = range(start, start + final) if isinstance(final, int) else final
    if both := sorted(set(searched) & set(fresh)):
        raise ConfigError(
            f"seed {both[0]} is one of the search; the comparison needs fresh seeds, for example "
            f"{start} and more"
        )
    return tuple(searched), tuple(fresh)


def _refuse_unknown_names(wanted: Wanted) -> None:
    if wanted.reference is not None and wanted.reference not in wanted.methods:
        near = did_you_mean(wanted.reference, wanted.methods)
        raise ConfigError(f"the reference {wanted.reference!r} is not among the methods{near}")


def _refuse_other_settings(registry: Registry, configs: Mapping[str, RunConfig]) -> None:
    """Check that the methods share a setting, and that only validation data is searched on.

    Raises:
        ConfigError: naming a method whose setting differs from that of the first.
    """
    settings = {method: records.setting_of(registry, c) for method, c in configs.items()}
    first = next(iter(settings))
    for method, setting in settings.items():
        if configs[method].accuracy.split != "validation":
            raise ConfigError(f"{method}: a search sees validation data only")
        if configs[method].stop_at is not None:
            raise ConfigError(
                f"{method}: a search compares scores after all rounds, so stop_at="
                f"{configs[method].stop_at:g} cannot end its runs; leave it out"
            )
        if setting != settings[first]:
            keys = [key for key in setting if setting[key] != settings[first].get(key)]
            raise ConfigError(
                f"{method} differs from {first} in {', '.join(keys)}; methods are tuned and "
                "compared under one setting"
            )


def _refuse_unshared(shared: Sequence[str], found: Mapping[str, Spaces]) -> None:
    """Check that every method searches what the first one is to tune for all.

    Raises:
        ConfigError: naming a method that does not, because it lacks the option or was given it.
    """
    for key, (method, own) in itertools.product(shared, found.items()):
        if key not in own:
            raise ConfigError(
                f"--shared {key}: it is not searched for {method}{did_you_mean(key, own)}"
            )


def _value(config: RunConfig, key: str) -> object:
    name, _, option = key.partition(".")
    return config.plugins[name][option]
