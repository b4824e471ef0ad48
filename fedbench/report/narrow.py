"""What charts show of results that are too many for them: variants, domains, classes, rounds.

Tables, CSV and JSON have everything; the caption of a chart says what the chart leaves out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

from ..store.contents import Partition
from ..study.analysis import MEAN, Group

T = TypeVar("T")

VARIANTS = 30
"""Series of a chart."""
PANELS = 24
"""Small charts of a figure, one for each domain, metric or loss term."""
BARS = 240
"""Bars of a figure, one for each variant and domain."""
CLASSES, CELLS = 100, 8000
"""Columns of a heat map, and cells of all heat maps of a figure; a map has at least 20 columns."""
CLIENTS = 100
"""Rows of a heat map."""
DOTS = 3000
"""Dots of a figure, one for each variant, domain and seed."""
POINTS, ROWS = 500, 20_000
"""Points of a line, and of all lines of a figure; a line has at least a tenth of `POINTS`."""


def narrowed(group: Group) -> tuple[Group, str, str]:
    """Return a group with as many variants and domains as charts can show.

    Returns:
        the group, and what is said of variants and of domains; empty where all are shown.
    """
    variants, about_variants = _variants(group)
    cells = {v: cells for v, cells in group.cells.items() if v in variants}
    columns, about_domains = _columns(dataclasses.replace(group, cells=cells))
    chosen = dataclasses.replace(group, cells=cells, columns=columns)
    return chosen, about_variants, about_domains


def _variants(group: Group) -> tuple[set[str], str]:
    if len(group.variants) <= VARIANTS:
        return set(group.variants), ""
    summaries = {v: cells[MEAN].summary for v, cells in group.cells.items()}
    means = {v: summary.mean for v, summary in summaries.items() if summary}
    best = sorted(means, key=lambda v: means[v], reverse=group.higher_is_better)[:VARIANTS]
    about = f"The {len(best)} best of {len(group.variants)} variants"
    if group.reference in means and group.reference not in best:
        return {*best, group.reference}, f"{about}, and the reference."
    return set(best), f"{about}."


def _columns(group: Group) -> tuple[tuple[str, ...], str]:
    domains = [column for column in group.columns if column != MEAN]
    most = max(6, min(PANELS, BARS // max(1, len(group.variants))))
    if len(domains) <= most:
        return group.columns, ""
    means = {}
    for domain in domains:
        found = [cells[domain].summary for cells in group.cells.values()]
        means[domain] = fmean(s.mean for s in found if s) if any(found) else 0.0
    low, high = lowest_and_highest(means, most)
    shown = tuple(c for c in group.columns if c == MEAN or c in (*low, *high))
    return shown, _ends(len(domains), "domains", low, high)


def lowest_and_highest(means: Mapping[str, float], most: int) -> tuple[list[str], list[str]]:
    """Return the names with the lowest and those with the highest means, ``most`` in all."""
    order = sorted(means, key=lambda name: means[name])
    return order[: most // 2], order[len(order) - (most - most // 2) :]


def _ends(number: int, what: str, low: Sequence[str], high: Sequence[str]) -> str:
    return (
        f"Of {number} {what}, the {len(low)} with the lowest and the {len(high)} with the highest "
        "mean."
    )


def classes(
    names: Sequence[str], rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[list[str], str]:
    """Return the classes that a heat map shows, and what is said of them.

    Args:
        names: all classes, in order.
        rows: domain -> rows with variant ``v``, class ``c`` and mean ``m``.
    """
    strips = len({(domain, row["v"]) for domain, found in rows.items() for row in found})
    most = max(20, min(CLASSES, CELLS // max(1, strips)))
    if len(names) <= most:
        return list(names), ""
    values: dict[str, list[float]] = {}
    for found in rows.values():
        for row in found:
            values.setdefault(row["c"], []).append(row["m"])
    low, high = lowest_and_highest({name: fmean(found) for name, found in values.items()}, most)
    return [*low, *high], f"{_ends(len(names), 'classes', low, high)[:-1]}, in this order."


def partition(table: Partition) -> tuple[Partition, str, str, str]:
    """Return a partition that fits a heat map, and what is said of clients, classes and domains.

    The first clients and domains are kept. Neighbouring classes are added up.
    """
    clients, size = len(table.counts), math.ceil(len(table.classes) / CLASSES)
    starts = range(0, len(table.classes), max(1, size))
    groups = [table.classes[start : start + size] for start in starts]
    names = [one[0] if len(one) == 1 else f"{one[0]} +{len(one) - 1}" for one in groups]
    counts = {
        client: {
            domain: [sum(row[start : start + size]) for start in starts]
            for domain, row in domains.items()
        }
        for client, domains in list(table.counts.items())[:CLIENTS]
    }
    held = [d for d in table.domains if any(any(row.get(d, ())) for row in counts.values())]
    shown = dataclasses.replace(table, classes=names, domains=held[:PANELS], counts=counts)
    return (
        shown,
        f"The first {CLIENTS} of {clients} clients." if clients > CLIENTS else "",
        f"{len(table.classes)} classes, {size} to a column, named after the first."
        if size > 1
        else "",
        f"The first {PANELS} of {len(held)} domains." if len(held) > PANELS else "",
    )


def points(group: Group) -> int:
    """Return how many points a line may have."""
    lines = len(group.variants) * len(group.columns)
    return max(POINTS // 10, min(POINTS, ROWS // max(1, lines)))


def thinned(line: Sequence[T], most: int) -> list[T]:
    """Return a line's points, or of too many the first, every n-th and the last, about ``most``."""
    step = math.ceil(len(line) / most)
    return [*line[:-1:step], *line[-1:]] if step > 1 else [*line]
