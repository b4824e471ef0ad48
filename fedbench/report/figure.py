"""A figure of the report: panels over shared data; and what the figures of a setting share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..study.analysis import MEAN, Group
from ..text import Unit
from ..types import RoundResult
from . import narrow, series, specs
from .content import plural, sentence
from .series import Rows
from .specs import Look, Spec

Pick = tuple[Callable[[RoundResult], float | None], Unit]
"""What picks a number from a round, and its unit."""

LONG = 18
"""Letters of a variant that fit beside a small chart."""


@dataclass(frozen=True)
class Panel:
    """One chart of a figure.

    Args:
        title: what sets it apart in its figure; empty for the only one.
        spec: the Vega-Lite spec without width; its data has a name of `Figure.data`.
        wide: whether it takes the whole width.
    """

    title: str
    spec: Spec
    wide: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels over shared data.

    Args:
        name: for file names.
        section: ``results``, ``clients``, ``classes`` or ``diagnostics``.
        title: the heading.
        caption: one sentence.
        panels: in order.
        data: name -> rows; figures of one setting that share a name share the rows.
        legend: the series shown; empty where colours don't tell series apart.
        labelled: whether an axis names the series, so that a file needs no legend.
        notes: what it leaves out because there is too much of it, a sentence each.
    """

    name: str
    section: str
    title: str
    caption: str
    panels: Sequence[Panel]
    data: Mapping[str, Rows]
    legend: Sequence[str] = ()
    labelled: bool = False
    notes: Sequence[str] = ()


def noted(found: Iterable[Figure | None], *notes: str) -> list[Figure]:
    """Return the figures that there are, with more notes; empty ones are none."""
    return [
        replace(figure, notes=tuple(filter(None, (*figure.notes, *notes))))
        for figure in found
        if figure
    ]


def look(group: Group) -> Look:
    """Return how the group's series look."""
    return Look(list(group.variants), specs.FORMS[group.unit])


def metric_name(group: Group) -> str:
    """Return the reported metric's name, with a capital."""
    return sentence(group.metric)


def seeds_text(group: Group) -> str:
    """Return how many seeds the variants have."""
    counts = sorted({len(runs) for runs in series.finished(group).values()})
    return plural(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def mean_of(group: Group) -> str:
    """Return what a line over rounds shows."""
    band = ", band: one standard deviation over seeds"
    several = any(len(runs) > 1 for runs in series.finished(group).values())
    return f"mean of {seeds_text(group)}{band if several else ''}"


def long_names(group: Group) -> bool:
    """Whether names are too long to stand beside a small chart."""
    return max(map(len, group.variants)) > LONG


def panel_title(group: Group, column: str) -> str:
    """Return the title of a column's panel; empty for the only one."""
    if len(group.columns) == 1:
        return ""
    return "mean over domains" if column == MEAN else column


def with_rows(group: Group, rows: Rows) -> list[str]:
    """Return the variants that have a row, in order."""
    present = {row["v"] for row in rows}
    return [variant for variant in group.variants if variant in present]


def small_charts(
    group: Group, name: str, title: str, caption: str, picks: Mapping[str, Pick]
) -> Figure | None:
    """Return a small chart of each number over rounds; ``None`` when there is none."""
    panels, data, legend = [], {}, set()
    for place, (label, (pick, unit)) in enumerate(list(picks.items())[: narrow.PANELS]):
        rows = series.over_rounds(group, pick)
        if not rows:
            continue
        key = f"{name}-{place}"
        data[key] = rows
        legend |= {row["v"] for row in rows}
        form = specs.FORMS[unit]
        spec = specs.lines(look(group), rows, key, y_title="", form=form, height=170)
        panels.append(Panel(label, spec))
    if not panels:
        return None
    shown = [variant for variant in group.variants if variant in legend]
    about = f"The first {narrow.PANELS} of {len(picks)}." if len(picks) > narrow.PANELS else ""
    figure = Figure(name, "diagnostics", title, caption, panels, data, shown)
    return noted([figure], about)[0]
