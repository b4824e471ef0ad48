"""Pictures that plugins return for a round: plain data, which the report draws.

Numbers over rounds are metrics and need no picture. `fedbench.types.ServerUpdate` takes pictures,
``rounds.jsonl`` keeps them, and reports show them on the page and as files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Scatter:
    """Points in a plane.

    Args:
        name: the same in every round, for file names.
        title: the figure's heading.
        caption: what it shows, a sentence.
        x, y: (n,), the points' places.
        colours: (n,), what colours tell apart, such as the class of each point.
        shapes: (n,), what shapes tell apart, such as the domain; ``""`` for a point that stands for
            its colour, such as a prototype, and is drawn large and labelled.
    """

    name: str
    title: str
    caption: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colours: tuple[str, ...]
    shapes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("x", "y"):  # plain numbers, as they are read back from a file
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))


@dataclass(frozen=True)
class HeatMap:
    """A matrix as coloured cells.

    Args:
        name: the same in every round, for file names.
        title: the figure's heading.
        caption: what it shows, a sentence.
        low, high: the ends of the scale.
        rows: names of the rows.
        columns: names of the columns.
        values: a tuple for each row.
    """

    name: str
    title: str
    caption: str
    low: float
    high: float
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        object.__setattr__(self, "values", tuple(tuple(map(float, row)) for row in self.values))


Picture: TypeAlias = Scatter | HeatMap
