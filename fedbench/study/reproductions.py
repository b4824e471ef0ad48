"""Reproductions: published results as data, the grid that measures them, and a rule fixed before.

A reproduction is a YAML file that a package registers. Its **cells** are settings, such as the
partitions of a table; each has a grid, as for ``fedbench compare``, and the values that were
published for its methods. `fedbench.study.verdicts` compares them with what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from .. import options
from ..config import yamlfile
from ..config.model import RunConfig
from ..errors import ConfigError, did_you_mean
from ..plugins.registry import Registry
from . import records
from .grid import Grid, Job, plan

Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Rule:
    """How far a measured value may be from the published one: so many points, or percent of it."""

    points: Positive | None = None
    percent: Positive | None = None

    def __post_init__(self) -> None:
        if self.points is not None and self.percent is not None:
            raise ValueError("give either points or percent")

    @property
    def given(self) -> bool:
        """Whether values can be judged; a file that states only orders needs no rule."""
        return self.points is not None or self.percent is not None

    def allowed(self, published: float) -> float:
        """Return the largest distance from a published value, in the value's own unit."""
        if self.points is not None:
            return self.points / 100
        assert self.percent is not None
        return published * self.percent / 100

    def __str__(self) -> str:
        """Return the rule in words."""
        if self.points is not None:
            return f"within {self.points:g} points of the published value"
        return f"within {self.percent:g} % of the published value"


@dataclass(frozen=True)
class Cost:
    """What a round of a method costs: seconds on the stated machine, examples trained on."""

    seconds: Positive
    examples: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Cell:
    """One setting, and what was published for its methods.

    Args:
        title: the setting in words.
        grid: keys of the grid that replace those of the file.
        published: method, as in the grid -> accuracy in [0, 1], or with ``stop_at`` the rounds.
        order: methods from best to worst, as published.
        cost: method -> what a round costs, where it is not as in the file.
        score: which number of the accuracy is judged: the mean, the worst (over clients, the worst
            tenth) or the standard deviation, of which less is better.
    """

    title: Text
    grid: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Positive] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    cost: dict[str, dict[str, Any]] = field(default_factory=dict)
    score: Literal["mean", "worst", "std"] = "mean"

    def __post_init__(self) -> None:
        if not self.published and len(self.order) < 2:
            raise ValueError("give published values, or the order of two methods or more")


@dataclass(frozen=True)
class Reproduction:
    """Published results, and how they are measured and judged.

    Args:
        name: the name that it is registered under.
        version: changes whenever a value of it does.
        title: one line.
        source: the paper, and the page, table or file in which the published values were read.
        grid: what all cells have in common, as in a grid of ``fedbench compare``.
        machine: the machine of the stated costs.
        cost: method -> what a round of it costs.
        cells: the settings by name.
        rule: when a measured value counts as the published one.
        from_memory: whether nobody has read them there for this file, so that they prove nothing.
        differs: what is known to differ from the published protocol, a sentence each.
    """

    name: Text
    version: Annotated[int, Field(ge=1)]
    title: Text
    source: Text
    machine: Text
    grid: dict[str, Any]
    cost: dict[str, dict[str, Any]]
    cells: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    rule: Rule = field(default_factory=Rule)
    from_memory: bool = False
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A cell that can be carried out.

    Args:
        name: the cell's name.
        cell: the cell.
        grid: its grid.
        costs: method -> what a round of it costs.
    """

    name: str
    cell: Cell
    grid: Grid
    costs: Mapping[str, Cost]


def load(registry: Registry, name: str) -> tuple[Reproduction, list[Part]]:
    """Read the reproduction ``name`` and all of its cells.

    Raises:
        ConfigError: when there is none, or its file is malformed; it names file, line and key.
    """
    path = registry.get("reproduction", name).value
    document = yamlfile.parse(path.read_text(encoding="utf-8"), str(path))
    data = {("name" if key == "reproduction" else key): v for key, v in document.data.items()}
    found = options.build(
        Reproduction,
        data,
        lambda p: document.where(tuple("reproduction" if k == "name" else k for k in p)),
    )
    return found, [_part(found, document, cell) for cell in found.cells]


def _part(of: Reproduction, document: yamlfile.Document, name: str) -> Part:
    here = ("cells", name)

    def below(*path: str) -> options.Where:
        return lambda rest: document.where((*path, *rest))

    def in_grid(path: tuple[str, ...]) -> str:
        inside = path[:1] and path[0] in cell.grid
        return document.where((*here, "grid", *path) if inside else ("grid", *path))

    cell = options.build(Cell, of.cells[name], below(*here))
    grid = options.build(Grid, {**of.grid, **cell.grid}, in_grid)
    if cell.published and not of.rule.given:
        where = document.where((*here, "published"))
        raise ConfigError(f"{where}: published values need a rule, such as `rule: {{points: 2}}`")
    if cell.score != "mean" and grid.stop_at is not None:
        where = document.where((*here, "score"))
        raise ConfigError(f"{where}: rounds to a target (stop_at) are judged, and have no score")
    for key, methods in (("published", cell.published), ("order", cell.order)):
        _check(methods, grid.methods, document.where((*here, key)))
    costs = {
        method: options.build(Cost, given, below(*place, "cost", method))
        for place, some in (((), of.cost), (here, cell.cost))
        for method, given in some.items()
    }
    for method in grid.methods:
        if method not in costs:
            raise ConfigError(f"{document.where(('cost',))}: no cost for {method!r}")
    return Part(name, cell, grid, costs)


def _check(methods: Iterable[str], known: Sequence[str], where: str) -> None:
    for method in methods:
        if method not in known:
            raise ConfigError(
                f"{where}: {method!r} is not a method of the grid{did_you_mean(method, known)}"
            )


def chosen(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """Return the cells of the given names; all without any.

    Raises:
        ConfigError: for a name that no cell has.
    """
    known = [part.name for part in parts]
    for name in names:
        if name not in known:
            raise ConfigError(f"no cell {name!r}{did_you_mean(name, known)}")
    return [part for part in parts if part.name in names or not names]


def with_methods(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """Return the cells that have the given methods, with these alone; all unchanged without any.

    Raises:
        ConfigError: for a method that no cell has, or if nothing was published of what is left of a
            cell.
    """
    if not names:
        return list(parts)
    known = list(dict.fromkeys(method for part in parts for method in part.grid.methods))
    for name in names:
        if name not in known:
            raise ConfigError(f"no method {name!r} in these cells{did_you_mean(name, known)}")
    return [_with_methods(part, names) for part in parts if set(names) & set(part.grid.methods)]


def _with_methods(part: Part, names: Sequence[str]) -> Part:
    cell, grid = part.cell, part.grid
    published = {method: value for method, value in cell.published.items() if method in names}
    order = tuple(method for method in cell.order if method in names)
    if not published and len(order) < 2:
        raise ConfigError(
            f"cell {part.name!r}: nothing was published of {' and '.join(names)} alone; published "
            f"are values of {', '.join(cell.published) or 'none'}, and the order of "
            f"{', '.join(cell.order) or 'none'}"
        )
    methods = [method for method in grid.methods if method in names]
    return replace(
        part,
        cell=replace(cell, published=published, order=order),
        grid=replace(grid, methods=methods, reference=None),
    )


def planned(registry: Registry, part: Part, folder: Path) -> list[Job]:
    """Plan the runs of a cell.

    Raises:
        ConfigError: for a name or value that cannot be used, or if the runs are not of one setting.
    """
    jobs = plan(registry, part.grid, folder)
    settings = [records.setting_of(registry, job.config) for job in jobs]
    if any(setting != settings[0] for setting in settings):
        raise ConfigError(
            f"cell {part.name!r}: its runs differ in more than the method, for example in data or "
            "partition; make one cell of each setting"
        )
    return jobs


@dataclass(frozen=True)
class Estimate:
    """What is still to be done for a cell.

    Args:
        runs: runs that are not finished.
        rounds: their rounds at most.
        expected: their rounds if they reach a target when the published ones did.
        examples: the examples that they train on in the expected rounds, with repetitions.
        seconds: the time of the expected rounds on the stated machine.
    """

    runs: int = 0
    rounds: int = 0
    expected: int = 0
    examples: int = 0
    seconds: float = 0.0

    def __add__(self, other: Estimate) -> Estimate:
        """Return the cost of both."""
        return Estimate(
            self.runs + other.runs,
            self.rounds + other.rounds,
            self.expected + other.expected,
            self.examples + other.examples,
            self.seconds + other.seconds,
        )


def estimate(part: Part, jobs: Iterable[Job]) -> Estimate:
    """Return what the runs of a cell, those that are left, would cost; none has to begin."""
    return sum((_of_run(part, job.config, job.method) for job in jobs), Estimate())


def estimate_whole(registry: Registry, part: Part) -> Estimate:
    """Return what all runs of a cell would cost, from one of them: their rounds are the same."""
    grid = part.grid
    one = replace(grid, methods=grid.methods[:1], reference=None, seeds=1)
    config = plan(registry, one, Path())[0].config
    seeds = grid.seeds if isinstance(grid.seeds, int) else len(grid.seeds)
    each = (_of_run(part, config, method) for method in grid.methods for _ in range(seeds))
    return sum(each, Estimate())


def _of_run(part: Part, config: RunConfig, method: str) -> Estimate:
    most, cost = config.rounds, part.costs[method]
    expected = most
    if config.stop_at is not None and method in part.cell.published:
        expected = min(most, round(part.cell.published[method]))
    return Estimate(1, most, expected, expected * cost.examples, expected * cost.seconds)
