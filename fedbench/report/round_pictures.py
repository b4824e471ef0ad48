"""The figures of what plugins draw of single rounds (`fedbench.pictures`): a panel for each round.

Seeds cannot be averaged here, so each variant shows its run of the lowest seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from ..pictures import HeatMap, Picture, Scatter
from ..study.analysis import Group
from . import narrow, series, specs
from .content import slug
from .figure import Figure, Panel, noted
from .series import Rows
from .specs import INK, PAGE, Spec, tip

LABELS = 30
"""Colours that are named in a chart; the names of more would hide the points."""


def pictures(group: Group) -> list[Figure]:
    """Return a figure of each picture by name, in order of appearance; none without pictures."""
    found: dict[tuple[type, str], list[tuple[str, Picture]]] = {}
    several = len(series.finished(group)) > 1
    for variant, runs in series.finished(group).items():
        for one in runs[0].rounds:
            for picture in one.pictures:
                title = f"{variant}, round {one.round}" if several else f"round {one.round}"
                found.setdefault((type(picture), picture.name), []).append((title, picture))
    forms = Counter(name for _, name in found)  # one plugin's map may have another's name of points
    names = [n if forms[n] == 1 else f"{n} ({form.__name__})" for form, n in found]
    return [_figure(f"picture-{slug(n)}", p) for n, p in zip(names, found.values(), strict=True)]


def _figure(name: str, shown: Sequence[tuple[str, Picture]]) -> Figure:
    first = shown[0][1]
    drawn = shown[: narrow.PANELS]
    points = max(100, narrow.DOTS // len(drawn))
    side = max(20, math.isqrt(narrow.CELLS // len(drawn)))
    panels: list[Panel] = []
    data: dict[str, Rows] = {}
    # The same colours and shapes in all panels.
    plotted = [picture for _, picture in drawn if isinstance(picture, Scatter)]
    colours = sorted({colour for picture in plotted for colour in picture.colours})
    shapes = sorted({shape for picture in plotted for shape in picture.shapes if shape})
    about = {f"The first {len(drawn)} of {len(shown)} pictures."} if drawn != shown else set()
    for place, (title, picture) in enumerate(drawn):
        key = f"{name}-{place}"
        if isinstance(picture, Scatter):
            small, large = _points(picture)
            data |= {key: small[:points], f"{key}-large": large}
            about |= {f"At most {points} small points."} if len(small) > points else set()
            spec = _scatter(key, small[:points], large, colours, shapes)
        else:
            data[key] = _cells(picture, side)
            about |= {f"The first {side} rows and columns."} if len(picture.rows) > side else set()
            spec = _heat(key, data[key], picture, side)
        panels.append(Panel(title, spec))
    figure = Figure(name, "diagnostics", first.title, first.caption, panels, data)
    return noted([figure], *sorted(about, reverse=True))[0]


def _points(picture: Scatter) -> tuple[Rows, Rows]:
    """Return rows (``x``, ``y``, colour ``c``, shape ``d``) of small points and of large ones."""
    every = zip(picture.x, picture.y, picture.colours, picture.shapes, strict=True)
    rows = [{"x": x, "y": y, "c": c, "d": d} for x, y, c, d in every]
    return [row for row in rows if row["d"]], [row for row in rows if not row["d"]]


def _names(rows: Rows, large: Rows) -> Rows:
    """Return where to name each colour: amid its large points, or amid its points if none is."""
    found = []
    for colour in dict.fromkeys(row["c"] for row in (*large, *rows)):
        mine = [row for row in large if row["c"] == colour]
        mine = mine or [row for row in rows if row["c"] == colour]
        x, y = (fmean(row[axis] for row in mine) for axis in "xy")
        found.append({"x": x, "y": y, "c": colour})
    return found if len(found) <= LABELS else []


def _scatter(
    data: str, rows: Rows, large: Rows, colours: Sequence[str], shapes: Sequence[str]
) -> Spec:
    """Points coloured by ``c`` and shaped by ``d``; large ones outlined; colours named."""
    where: Spec = {
        **_square([*rows, *large]),
        "color": {
            "field": "c",
            "type": "nominal",
            "scale": {
                "domain": colours,
                "scheme": "tableau10" if len(colours) <= 10 else "tableau20",
            },
            "legend": None,
        },
    }
    kinds = [specs.SHAPES[place % len(specs.SHAPES)] for place in range(len(shapes))]
    shape: Spec = {
        "field": "d",
        "type": "nominal",
        "scale": {"domain": shapes, "range": kinds},
        "legend": {"title": None} if len(shapes) > 1 else None,
    }
    tips = [tip("c", "class"), tip("d", "domain")]
    text: Spec = {"type": "text", "fontSize": 11, "fontWeight": 600, "dy": -10}
    names: Spec = {"data": {"values": _names(rows, large)}}
    named = {axis: where[axis] for axis in "xy"} | {"text": {"field": "c", "type": "nominal"}}
    point: Spec = {"type": "point", "filled": True}
    return {
        "data": {"name": data},
        "height": 240,
        "layer": [
            {
                "mark": {**point, "size": 22, "opacity": 0.7},
                "encoding": {**where, "shape": shape, "tooltip": tips},
            },
            {
                "data": {"name": f"{data}-large"},
                "mark": {**point, "size": 90, "opacity": 1, "stroke": INK, "strokeWidth": 1.2},
                "encoding": {**where, "tooltip": tips[:1]},
            },
            {**names, "mark": {**text, "stroke": PAGE, "strokeWidth": 3}, "encoding": named},
            {**names, "mark": {**text, "color": INK}, "encoding": named},
        ],
    }


def _square(rows: Rows) -> Spec:
    """Return x and y with scales of equal length, so that distances can be compared."""
    ends = {axis: [f(row[axis] for row in rows) for f in (min, max)] for axis in "xy"}
    half = 0.55 * max(high - low for low, high in ends.values()) or 1.0
    return {
        axis: {
            "field": axis,
            "type": "quantitative",
            "title": None,
            "axis": {"tickCount": 4},
            "scale": {"domain": [(low + high) / 2 - half, (low + high) / 2 + half], "nice": False},
        }
        for axis, (low, high) in ends.items()
    }


def _cells(picture: HeatMap, most: int) -> Rows:
    return [
        {"k": row, "c": column, "m": series.short(value)}
        for row, values in list(zip(picture.rows, picture.values, strict=True))[:most]
        for column, value in list(zip(picture.columns, values, strict=True))[:most]
    ]


def _heat(data: str, rows: Rows, picture: HeatMap, most: int) -> Spec:
    names = list(picture.rows[:most])
    return specs.heat(
        data,
        rows,
        {"field": "k", "sort": names, "title": None},
        picture.columns[:most],
        [tip("k", "row"), tip("c", "column"), tip("m", "value", specs.FORMS["plain"])],
        domain=(picture.low, picture.high),
        text="format(datum.m, '.1f')",
        height=24 * len(names) if len(names) <= 12 else max(280, 4 * len(names)),
        x_title="",
    )
