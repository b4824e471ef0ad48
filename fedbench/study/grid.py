"""A grid of runs: methods x settings x seeds, planned from names or YAML.

A run is keyed by the hash of its resolved config, so that finished runs are reused, and adding a
method or a seed runs only what is new.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from .. import options
from ..config import yamlfile
from ..config.changes import joined, parts
from ..config.layers import set_keys_of
from ..config.model import RunConfig
from ..config.resolve import resolve
from ..config.stopping import check_value
from ..errors import ConfigError, did_you_mean
from ..plugins.registry import Registry
from ..store.directory import RunDirectory
from . import records

T = TypeVar("T")

PLAIN = "plain"
"""The setting without changes."""

HASH = 12
"""How many digits of its config's hash are in the name of a run's directory."""


@dataclass(frozen=True, eq=False)
class Grid:
    """What to compare: the product of methods, settings and seeds."""

    methods: Annotated[
        list[str],
        Field(
            min_length=1,
            description="fedavg, fedhpro:-hpal, fedhpro:hpcl.temperature=0.1, mine.yaml",
        ),
    ]
    data: Annotated[list[str], Field(description="data sets; by default the default data set")] = (
        field(default_factory=list)
    )
    cards: Annotated[list[str], Field(description="cards; by default each data set's own")] = field(
        default_factory=list
    )
    partitions: Annotated[
        list[dict[str, dict[str, Any] | None]],
        Field(description="partition plugins with options, in place of the card's"),
    ] = field(default_factory=list)
    settings: Annotated[
        list[str],
        Field(
            description="changes of every method, such as +sign_flip:sign_flip.clients=0.2, each "
            "in turn; 'plain' is without any"
        ),
    ] = field(default_factory=list)
    seeds: Annotated[int | list[int], Field(description="how many seeds from 0, or which ones")] = 3
    options: Annotated[
        dict[str, list[Any]], Field(description="dotted key -> the values to try, as in --set")
    ] = field(default_factory=dict)
    set: Annotated[list[str], Field(description="KEY=VALUE for every run, as in --set")] = field(
        default_factory=list
    )
    rounds: Annotated[int | None, Field(ge=1, description="rounds of every run")] = None
    device: Annotated[str | None, Field(description="device of every run")] = None
    reference: Annotated[str | None, Field(description="default the last method")] = None
    stop_at: Annotated[
        str | float | None,
        Field(description="accuracy=0.9: end runs after the first scored round that reaches it"),
    ] = None
    target: Annotated[
        float | None,
        Field(
            allow_inf_nan=False,
            description="value of the reported metric whose cost is compared; default the final "
            "value of the reference",
        ),
    ] = None
    test: Annotated[Literal["t", "wilcoxon"], Field(description="the paired test")] = "t"

    def __post_init__(self) -> None:
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ValueError("seeds must be at least 1")
        if self.seeds == []:
            raise ValueError("seeds: give at least one")
        if empty := next((key for key, values in self.options.items() if not values), None):
            raise ValueError(f"options.{empty}: give at least one value to try")
        if self.reference is not None and self.reference not in self.methods:
            known = did_you_mean(self.reference, self.methods)
            raise ValueError(f"the reference {self.reference!r} is not among the methods{known}")


def make_grid(file: Path | None, changes: Mapping[str, Any], giver: str) -> Grid:
    """Return the `asked` grid."""
    return asked(Grid, file, changes, giver)


def asked(kind: type[T], file: Path | None, changes: Mapping[str, Any], giver: str) -> T:
    """Return what ``changes`` ask for, on top of a YAML file if there is one.

    Args:
        kind: a dataclass; its fields are the keys.
        file: the YAML file.
        changes: keys; those that are ``None`` or empty change nothing.
        giver: who gives them, for errors.

    Raises:
        ConfigError: naming the key, and file and line if it comes from there.
    """
    given = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in changes.items()
        if value not in (None, (), [])
    }
    if file is None:
        return options.build(kind, given, lambda path: ".".join((giver, *path)))
    document = yamlfile.read(file)
    return options.build(kind, {**document.data, **given}, document.where)


@dataclass(frozen=True)
class Job:
    """One run of a comparison: its config, what the user called it, and its directory."""

    config: RunConfig
    method: str
    path: Path
    also: tuple[str, ...] = ()
    """Other names that the user gave to the same run."""


@dataclass(frozen=True)
class Variant:
    """A method as the user names it: ``fedhpro:-hpal:+validate:hpcl.temperature=0.1``.

    Args:
        method: a recipe's name, or ``None`` for a file.
        file: the file of ``mine.yaml:-hpal``.
        without: plugins to leave out.
        plus: plugins to add.
        sets: values to set.
    """

    method: str | None
    file: Path | None = None
    without: tuple[str, ...] = ()
    plus: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


def parse_method(text: str) -> Variant:
    """Read a method as the user names it, which may be a variant's name in a report.

    Raises:
        ConfigError: for a part that is not ``-PLUGIN``, ``+PLUGIN`` or ``KEY=VALUE``.
    """
    head, *changes = parts(text)
    is_file = Path(head).suffix in (".yaml", ".yml")
    return _changed(text, changes, None if is_file else head, _path(head) if is_file else None)


def parse_setting(text: str) -> Variant:
    """Read a setting as the user names it: changes for every method, or ``plain`` for none.

    Raises:
        ConfigError: for a part that is not ``-PLUGIN``, ``+PLUGIN`` or ``KEY=VALUE``.
    """
    return _changed(text, [] if text == PLAIN else parts(text), None, None)


def _changed(text: str, changes: Sequence[str], method: str | None, file: Path | None) -> Variant:
    for part in changes:
        if part == "reordered":
            raise ConfigError(
                f"{text}: another order of plugins has no short form; give the YAML file, for "
                "example the config that the run keeps"
            )
        if not (part[:1] in ("-", "+") or "=" in part) or len(part) < 2:
            raise ConfigError(f"{text}: {part!r} must be -PLUGIN, +PLUGIN or KEY=VALUE")
    return Variant(
        method,
        file,
        tuple(part[1:] for part in changes if part[0] == "-"),
        tuple(part[1:] for part in changes if part[0] == "+"),
        tuple(part for part in changes if part[0] not in "-+"),
    )


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def plan(registry: Registry, grid: Grid, folder: Path) -> list[Job]:
    """Resolve every run of the grid, ordered by seed, so that early results are already paired.

    Raises:
        ConfigError: for a name or value that cannot be used.
    """
    seeds = range(grid.seeds) if isinstance(grid.seeds, int) else grid.seeds
    choices = [
        [f"{key}={yamlfile.inline(value)}" for value in values]
        for key, values in grid.options.items()
    ]
    names: list[str | None] = [*grid.data] or [None]
    cards: list[str | None] = [*grid.cards] or [None]
    partitions: list[dict[str, dict[str, Any] | None] | None] = [*grid.partitions] or [None]
    changes = [parse_setting(text) for text in grid.settings or [PLAIN]]
    settings = itertools.product(names, cards, partitions, changes, itertools.product(*choices))
    resolver = {method: _resolver(registry, grid, method) for method in grid.methods}
    jobs: dict[str, Job] = {}
    kept = {path.name[-HASH:]: path for path in (folder / "runs").glob("[!.]*-s*-*")}
    for data, card, partition, change, extra in settings:
        for seed, method in itertools.product(seeds, grid.methods):
            config = resolver[method](data, card, change, extra, seed)
            if partition is not None:
                config = _with_partition(registry, config, partition)
            job = Job(config, method, _place(folder, method, config, kept))
            same = jobs.setdefault(config.hash, job)
            if method not in (same.method, *same.also):
                jobs[config.hash] = replace(same, also=(*same.also, method))
    _refuse_same_names(registry, jobs.values())
    for metric in {job.config.accuracy.metric for job in jobs.values()}:
        check_value(registry, metric, grid.target, "the target")
    return list(jobs.values())


def _resolver(registry: Registry, grid: Grid, method: str) -> Callable[..., RunConfig]:
    """Return a function that resolves one method of the grid; its file is read once.

    Raises:
        ConfigError: for a name or file that cannot be used.
    """
    wanted = parse_method(method)
    file = yamlfile.read(wanted.file) if wanted.file else None
    if file and "methods" in file.data:
        raise ConfigError(f"{wanted.file} is a grid, not a method; give it as --config")

    shared = {"rounds": grid.rounds, "stop_at": grid.stop_at, "device": grid.device}

    def resolved(
        data: str | None, card: str | None, setting: Variant, extra: Sequence[str], seed: int
    ) -> RunConfig:
        given = [*grid.set, *setting.sets, *extra, *wanted.sets]
        if any("seed" in set_keys_of(text) for text in given):
            raise ConfigError("seed is set for every run; say which seeds with --seeds (`seeds:`)")
        return resolve(
            registry,
            wanted.method,
            file=file,
            card=card,
            sets=given,
            without=(*setting.without, *wanted.without),
            plus=(*setting.plus, *wanted.plus),
            flags={**shared, "data": data, "seed": seed},
        )

    return resolved


def _refuse_same_names(registry: Registry, jobs: Iterable[Job]) -> None:
    """Check that tables can tell the methods apart.

    Raises:
        ConfigError: when two runs of a setting and seed would have the same name.
    """
    seen: dict[tuple[str, ...], Job] = {}
    for job in jobs:
        name = records.variant_of(registry, job.config)
        setting = json.dumps(records.setting_of(registry, job.config), sort_keys=True)
        other = seen.setdefault((setting, name, str(job.config.seed)), job)
        if other.method != job.method:
            raise ConfigError(
                f"{other.method} and {job.method} differ, but tables would call both {name!r}; "
                "state another `method: NAME` in the YAML file of one of them"
            )


def run_path(folder: Path, method: str, config: RunConfig) -> Path:
    """Return the directory of a run, named readably and by the start of its config's hash."""
    slug = re.sub(r"[^A-Za-z0-9.=_-]+", "_", f"{config.data_name}-{method}")[:80]
    return folder / "runs" / f"{slug}-s{config.seed}-{config.hash[:HASH]}"


def _place(folder: Path, method: str, config: RunConfig, kept: Mapping[str, Path]) -> Path:
    """Return where a run is kept, perhaps under another name of its method, or else will be.

    Args:
        folder: of the comparison.
        method: as the user named it.
        config: of the run.
        kept: start of a config's hash -> directory, of the runs in the folder.
    """
    path = run_path(folder, method, config)
    return path if path.exists() else kept.get(config.hash[:HASH], path)


def _with_partition(
    registry: Registry, config: RunConfig, partition: Mapping[str, Any]
) -> RunConfig:
    """Replace the partition plugins of a run."""
    data = config.to_dict()
    old = [n for n in data["plugins"] if "partition" in registry.get("plugin", n).own_hooks]
    rest = {name: given for name, given in data["plugins"].items() if name not in old}
    data["plugins"] = {**{name: given or {} for name, given in partition.items()}, **rest}
    return resolve(registry, file=yamlfile.Document(data, "partitions"))


def labels(registry: Registry, jobs: Sequence[Job]) -> dict[str, str]:
    """Return the variant's name in the report for each method as the user wrote it.

    If options that are tried make several variants of a method, the name is that of the variant
    with the fewest changes, which is the method with its defaults where these are among the values.
    """
    fewest: dict[str, tuple[str, list[str]]] = {}
    for job in jobs:
        one = (job.config.method, records.changes_of(registry, job.config))
        for method in (job.method, *job.also):  # min returns the first of those with equally few
            fewest[method] = min(fewest.get(method, one), one, key=lambda found: len(found[1]))
    return {name: joined(*found) for name, found in fewest.items()}


def collect(
    registry: Registry, jobs: Sequence[Job], left_out: Callable[[str], object] = lambda _: None
) -> list[records.Record]:
    """Read the runs of a plan; those that have not begun are omitted.

    ``left_out`` is called with one line per run whose files contradict each other.
    """
    begun = [job.path for job in jobs if RunDirectory(job.path).exists]
    return records.fitting(registry, begun, left_out)
