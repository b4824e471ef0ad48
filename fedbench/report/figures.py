"""The charts as Vega-Lite: one spec gives the interactive chart, the PNG and the SVG.

Colours are CSS variables (``var(--ink)``): a page defines them for light, dark and print, files get
them from `paper`. Series differ by colour (Okabe and Ito's set), dash and shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..analysis import MEAN, Group
from . import series
from .content import is_share, metric, number, p_value
from .series import Rows

Spec = dict[str, Any]

COLOURS = 7
DASHES: tuple[list[int], ...] = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3])
SHAPES: tuple[str, ...] = (
    "M-.8,0A.8,.8,0,1,1,.8,0A.8,.8,0,1,1,-.8,0Z",
    "M-.7,-.7H.7V.7H-.7Z",
    "M0,-.95L.85,.65H-.85Z",
    "M0,-1L.8,0L0,1L-.8,0Z",
    "M0,.95L-.85,-.65H.85Z",
    "M-.3,-.9H.3V-.3H.9V.3H.3V.9H-.3V.3H-.9V-.3H-.3Z",
)
"""Circle, square, triangle up, diamond, triangle down, cross, in a square of -1 to 1."""


@dataclass(frozen=True)
class Panel:
    """One chart without its width.

    Args:
        title: what sets it apart in its figure; empty for the only one.
        spec: the Vega-Lite spec; its data has a name of `Figure.data`.
        wide: whether it takes the whole width.
    """

    title: str
    spec: Spec
    wide: bool = False


@dataclass(frozen=True)
class Figure:
    """One figure: panels over shared data.

    Args:
        name: for file names.
        title: the heading.
        caption: one sentence.
        panels: in order.
        data: name -> rows.
        legend: the series shown, in order; empty when colours don't tell series apart.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]
    data: Mapping[str, Rows]
    legend: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Style:
    """How a series looks."""

    colour: str
    dash: list[int]
    shape: str


def style(position: int) -> Style:
    """Return the look of the series at a position; 210 of them differ."""
    return Style(
        f"var(--s{position % COLOURS})",
        DASHES[position % len(DASHES)],
        SHAPES[position % len(SHAPES)],
    )


class Maker:
    """Makes the figures of one setting."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.names = list(group.variants)
        self.share = is_share(metric(group))
        self.what = metric(group)
        self.seeds = max((len(c[MEAN].values) for c in group.cells.values()), default=0)

    def all(self) -> list[Figure]:
        """Return every figure that the runs have numbers for."""
        if not series.runs_of(self.group):
            return [f for f in [self.partition()] if f]
        curves = series.curves(self.group)
        figures = [
            self.rounds(curves),
            self.cost("bytes", "b", "bytes sent so far", curves[MEAN]),
            self.cost("seconds", "s", "seconds so far", curves[MEAN]),
            self.domains(),
            self.differences(),
            *self.classes(),
            self.partition(),
            *self.metrics(),
        ]
        return [figure for figure in figures if figure is not None]

    def rounds(self, curves: Mapping[str, Rows]) -> Figure:
        """Accuracy over rounds: the mean, and every domain."""
        panels, data = [], {}
        for position, (column, rows) in enumerate(curves.items()):
            name = "curves" if column == MEAN else f"curves-{position}"
            data[name] = rows
            wide = column == MEAN
            several = len(curves) > 1
            title = ("mean over domains" if wide else column) if several else ""
            panels.append(Panel(title, self._lines(rows, name, "r", "round", wide=wide), wide))
        return Figure(
            "rounds",
            f"{self._name()} over rounds",
            f"Mean of {self._seeds()}; {BAND}.",
            panels,
            data,
            self._shown(curves[MEAN]),
        )

    def cost(self, name: str, key: str, title: str, rows: Rows) -> Figure | None:
        """Accuracy over what it cost so far."""
        rows = [row for row in rows if key in row]
        if not rows:
            return None
        how = {
            "bytes": "Uploads and broadcasts of all clients together, without compression",
            "seconds": "Wall-clock time of the rounds, which depends on the machine",
        }[name]
        spec = self._lines(rows, "curves", key, title, wide=True)
        return Figure(
            name,
            f"{self._name()} over {'bytes sent' if name == 'bytes' else 'seconds'}",
            f"{how}; mean of {self._seeds()}, {BAND}.",
            [Panel("", spec, True)],
            {"curves": rows},
            self._shown(rows),
        )

    def domains(self) -> Figure:
        """Bars per domain with intervals, and each seed as a dot."""
        bars: Rows = []
        dots: Rows = []
        for column in self.group.columns:
            for variant in self.names:
                cell = self.group.cells[variant][column]
                if cell.summary is None:
                    continue
                summary = cell.summary
                row = {"v": variant, "d": column, "m": series.short(summary.mean)}
                row["n"] = len(cell.values)
                if summary.low is not None and summary.high is not None:
                    row |= {"lo": series.short(summary.low), "hi": series.short(summary.high)}
                bars.append(row)
                dots += [
                    {"v": variant, "d": column, "m": series.short(value), "seed": seed}
                    for seed, value in cell.values.items()
                ]
        ends = [r[k] for r in bars for k in ("m", "lo", "hi") if k in r] + [d["m"] for d in dots]
        top, bottom = max(ends), min(0.0, *ends)
        if self.share:
            top, bottom = min(1.0, top * 1.02), 0.0
        y = {
            "field": "m",
            "type": "quantitative",
            "title": self._axis(),
            "axis": self._format(),
            "scale": {"domain": [bottom, top], "zero": True, "nice": False},
        }
        long = sum(map(len, self.group.columns)) > 60
        domain = {
            "field": "d",
            "type": "nominal",
            "sort": list(self.group.columns),
            "title": None,
            "axis": {"labelAngle": -35 if long else 0, "grid": False, "ticks": False},
            "scale": {"paddingInner": 0.2, "paddingOuter": 0.1},
        }
        offset = {"field": "v", "sort": self.names, "scale": {"paddingInner": 0.1}}
        where = {"x": domain, "xOffset": offset}
        tips = [
            tip("v", "variant"),
            tip("d", "domain"),
            tip("m", "mean", self._d3()),
            tip("lo", "95 % from", self._d3()),
            tip("hi", "to", self._d3()),
            tip("n", "seeds"),
        ]
        layers = [
            {
                "mark": {"type": "bar", "clip": True, "opacity": 0.75},
                "encoding": {**where, "y": y, "color": self._colour(), "tooltip": tips},
            },
            {
                "mark": {"type": "rule", "clip": True, "strokeWidth": 1.5, "color": INK},
                "encoding": {**where, "y": {**y, "field": "lo"}, "y2": {"field": "hi"}},
            },
            {
                "data": {"name": "dots"},
                "mark": {
                    "type": "point",
                    "clip": True,
                    "filled": True,
                    "size": 16,
                    "color": INK,
                    "opacity": 0.6,
                },
                "encoding": {
                    **where,
                    "y": y,
                    "tooltip": [
                        tip("v", "variant"),
                        tip("seed", "seed"),
                        tip("m", self.what, self._d3()),
                    ],
                },
            },
        ]
        spec = {"data": {"name": "bars"}, "height": 260, "layer": layers}
        over = " and domain" if len(self.group.columns) > 1 else ""
        return Figure(
            "domains",
            f"{self._name()} by domain" if over else self._name(),
            "Bars: mean over seeds by the accuracy rule; lines: 95 % interval of the mean; dots: "
            "single seeds.",
            [Panel("", spec, True)],
            {"bars": bars, "dots": dots},
            self._shown(bars),
        )

    def differences(self) -> Figure | None:
        """Paired differences to the reference with their intervals, a panel for each column."""
        group = self.group
        data: dict[str, Rows] = {}
        panels = []
        for position, column in enumerate(group.columns):
            rows: Rows = []
            for variant in self.names:
                cell = group.cells[variant][column]
                paired = cell.paired
                if paired is None:
                    continue
                row = {"v": variant, "m": series.short(paired.difference), "n": paired.n}
                row |= {"p": p_value(cell.adjusted_p), "clear": cell.significant}
                if paired.low is not None and paired.high is not None:
                    row |= {"lo": series.short(paired.low), "hi": series.short(paired.high)}
                    row["text"] = f"{number(paired.low, group, '+')} to " + number(
                        paired.high, group, "+"
                    )
                rows.append(row)
            if rows:
                name = f"differences-{position}"
                data[name] = rows
                several = len(group.columns) > 1
                title = ("mean over domains" if column == MEAN else column) if several else ""
                panels.append(Panel(title, self._forest(name, rows), column == MEAN))
        if not panels:
            return None
        return Figure(
            "differences",
            f"Paired difference to {group.reference}",
            "Left of zero is worse than the reference, with the 95 % interval of the mean paired "
            "difference; filled: significant at 5 % after Holm's correction."
            if group.higher_is_better
            else "Right of zero is worse than the reference, with the 95 % interval of the mean "
            "paired difference; filled: significant at 5 % after Holm's correction.",
            panels,
            data,
        )

    def _forest(self, name: str, rows: Rows) -> Spec:
        factor, unit = (100, "points") if self.share else (1, self.what)
        scaled = [f"datum.{k} = datum.{k}" for k in ()]
        assert not scaled
        transform = [
            {"calculate": f"{factor} * datum.{key}", "as": f"x{key}"} for key in ("m", "lo", "hi")
        ]
        x = {
            "field": "xm",
            "type": "quantitative",
            "title": f"difference, {unit}",
            "axis": {"format": "+~g"},
            "scale": {"zero": True},
        }
        y = {
            "field": "v",
            "type": "nominal",
            "sort": self.names,
            "title": None,
            "axis": {"grid": False, "ticks": False, "domain": False, "labelLimit": 150},
        }
        tips = [tip("v", "variant"), tip("xm", "difference", "+.2f"), tip("text", "95 %")]
        tips += [tip("p", "p (Holm)"), tip("n", "seeds")]
        colour = self._colour()
        return {
            "data": {"name": name},
            "height": {"step": 24},
            "transform": transform,
            "layer": [
                {
                    "mark": {"type": "rule", "color": MUTED, "strokeDash": [3, 3]},
                    "encoding": {"x": {"datum": 0}},
                },
                {
                    "mark": {"type": "rule", "strokeWidth": 2},
                    "encoding": {"x": {**x, "field": "xlo"}, "x2": {"field": "xhi"}, "y": y}
                    | {"color": colour},
                },
                {
                    "mark": {"type": "point", "size": 70, "strokeWidth": 2, "opacity": 1},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "color": colour,
                        "shape": self._shape(),
                        "tooltip": tips,
                        "fill": {
                            "condition": {
                                "test": "datum.clear",
                                "field": "v",
                                "type": "nominal",
                                "scale": colour["scale"],
                                "legend": None,
                            },
                            "value": PAGE,
                        },
                    },
                },
            ],
        }
