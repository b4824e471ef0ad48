"""A grid of runs: methods x settings x seeds, planned from names or YAML, run in processes.

A run is keyed by the hash of its resolved config, so what is finished is reused, and adding a
method or a seed runs only what is new. Every run has a lock file: two comparisons in one folder
wait for each other's runs instead of repeating or corrupting them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from .. import options
from ..config import yamlfile
from ..config.model import RunConfig
from ..config.resolve import resolve
from ..errors import ConfigError, did_you_mean
from ..plugins.registry import Registry
from ..store.directory import RunDirectory
from . import records


@dataclass(frozen=True, eq=False)
class Grid:
    """What to compare: the product of methods, settings and seeds."""

    methods: Annotated[
        list[str],
        Field(min_length=1, description="fedavg, fedhpro:-hpal, fedhpro:hpcl.temperature=0.1"),
    ]
    data: Annotated[list[str], Field(description="data sets; default the default one")] = field(
        default_factory=list
    )
    cards: Annotated[list[str], Field(description="cards; default each data set's own")] = field(
        default_factory=list
    )
    partitions: Annotated[
        list[dict[str, dict[str, Any] | None]],
        Field(description="partition plugins with options, instead of the card's"),
    ] = field(default_factory=list)
    seeds: Annotated[int | list[int], Field(description="how many seeds from 0, or which ones")] = 3
    options: Annotated[
        dict[str, list[Any]], Field(description="dotted key -> values to try, as in --set")
    ] = field(default_factory=dict)
    set: Annotated[list[str], Field(description="KEY=VALUE for every run, as in --set")] = field(
        default_factory=list
    )
    rounds: Annotated[int | None, Field(ge=1, description="rounds of every run")] = None
    device: Annotated[str | None, Field(description="device of every run")] = None
    reference: Annotated[str | None, Field(description="default the last method")] = None
    test: Annotated[Literal["t", "wilcoxon"], Field(description="the paired test")] = "t"

    def __post_init__(self) -> None:
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ValueError("seeds must be at least 1")
        if self.reference is not None and self.reference not in self.methods:
            known = did_you_mean(self.reference, self.methods)
            raise ValueError(f"the reference {self.reference!r} is not among the methods{known}")


def load_grid(path: Path, changes: Mapping[str, Any]) -> Grid:
    """Read a grid from a YAML file; ``changes`` win over it.

    Raises:
        ConfigError: naming file, line and key.
    """
    document = yamlfile.read(path)
    return options.build(Grid, {**document.data, **changes}, document.where)


@dataclass(frozen=True)
class Job:
    """One run of a comparison: its config, what the user called it, and its directory."""

    config: RunConfig
    method: str
    path: Path
    also: tuple[str, ...] = ()
    """Other names that the user gave the same run."""


def parse_method(text: str) -> tuple[str, list[str], list[str]]:
    """Split ``fedhpro:-hpal:hpcl.temperature=0.1`` into method, plugins to drop, values to set.

    Raises:
        ConfigError: for a part that is neither ``-PLUGIN`` nor ``KEY=VALUE``.
    """
    method, *parts = text.split(":")
    for part in parts:
        if not (part.startswith("-") or "=" in part) or len(part) < 2:
            raise ConfigError(f"{text}: {part!r} must be -PLUGIN or KEY=VALUE")
    without = [part[1:] for part in parts if part.startswith("-")]
    return method, without, [part for part in parts if not part.startswith("-")]


def plan(registry: Registry, grid: Grid, folder: Path) -> list[Job]:
    """Resolve every run of the grid, seed by seed, so that early results are already paired.

    Raises:
        ConfigError: for a name or value that any run could not use.
    """
    seeds = range(grid.seeds) if isinstance(grid.seeds, int) else grid.seeds
    choices = [[f"{key}={value}" for value in values] for key, values in grid.options.items()]
    names: list[str | None] = [*grid.data] or [None]
    cards: list[str | None] = [*grid.cards] or [None]
    partitions: list[dict[str, dict[str, Any] | None] | None] = [*grid.partitions] or [None]
    settings = itertools.product(names, cards, partitions)
    jobs: dict[str, Job] = {}
    for (data, card, partition), extra in itertools.product(settings, itertools.product(*choices)):
        for seed, method in itertools.product(seeds, grid.methods):
            name, without, sets = parse_method(method)
            flags = {"data": data, "rounds": grid.rounds, "seed": seed, "device": grid.device}
            given = {
                "card": card,
                "sets": [*grid.set, *map(str, extra), *sets],
                "flags": flags,
            }
            config = resolve(registry, name, without=without, **given)
            if partition is not None:
                config = _with_partition(registry, config, partition)
            job = Job(config, method, run_path(folder, method, config))
            same = jobs.setdefault(config.hash, job)
            if method not in (same.method, *same.also):
                jobs[config.hash] = replace(same, also=(*same.also, method))
    return list(jobs.values())


def run_path(folder: Path, method: str, config: RunConfig) -> Path:
    """Return where a run is kept: a readable name and the head of its config's hash."""
    slug = re.sub(r"[^A-Za-z0-9.=_-]+", "_", f"{config.data_name}-{method}")[:80]
    return folder / "runs" / f"{slug}-s{config.seed}-{config.hash[:12]}"


def _with_partition(
    registry: Registry, config: RunConfig, partition: Mapping[str, Any]
) -> RunConfig:
    """Put partition plugins in the place of those that the run has."""
    data = config.to_dict()
    old = [n for n in data["plugins"] if "partition" in registry.get("plugin", n).hooks]
    rest = {name: given for name, given in data["plugins"].items() if name not in old}
    data["plugins"] = {**{name: given or {} for name, given in partition.items()}, **rest}
    return resolve(registry, file=yamlfile.Document(data, "partitions"))


def labels(registry: Registry, jobs: Sequence[Job]) -> dict[str, str]:
    """Return, for each method as the user wrote it, the variant's name in the report.

    With several settings of a method it is that of the first one.
    """
    names: dict[str, str] = {}
    for job in jobs:
        for method in (job.method, *job.also):
            names.setdefault(method, records.variant_of(registry, job.config))
    return names


def collect(
    registry: Registry, jobs: Sequence[Job], left_out: Callable[[str], object] = lambda _: None
) -> list[records.Record]:
    """Read the runs of a plan; those that have not begun are left out.

    ``left_out`` is called with a line for each run whose files contradict each other.
    """
    begun = [job.path for job in jobs if RunDirectory(job.path).exists]
    return records.fitting(registry, begun, left_out)
