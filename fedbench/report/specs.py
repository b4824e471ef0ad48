"""Charts as Vega-Lite specs without data, width or theme: pure functions.

Colours are CSS variables (``var(--ink)``): the page defines them for light, dark and print, files
get them from `fedbench.report.draw`. Series differ by colour (Okabe and Ito's set), dash and shape.
Rows have the keys of `fedbench.report.series`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..text import Unit
from .series import Rows

Spec = dict[str, Any]

FORMS: Mapping[Unit, str] = {"percent": ".1%", "plain": ".4~g"}
"""The number format (d3) of a unit."""
CELLS: Mapping[Unit, str] = {
    "percent": "format(100 * datum.m, '.0f')",
    "plain": "format(datum.m, '.2~g')",
}
"""The expression of a number that has to fit into a cell of a heat map."""

INK, MUTED, PAGE = "var(--ink)", "var(--muted)", "var(--page)"
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
"""Circle, square, triangle up, diamond, triangle down, cross, in a square from -1 to 1."""

CONFIG: Spec = {
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--axis)",
        "tickColor": "var(--axis)",
        "gridColor": "var(--grid)",
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titlePadding": 8,
        "labelLimit": 220,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": MUTED,
        "labelLimit": 0,
        "orient": "top",
        "symbolLimit": 0,
        "symbolSize": 90,
        "symbolStrokeWidth": 2,
        "columnPadding": 18,
    },
    "title": {"color": INK, "fontSize": 12, "fontWeight": 600, "anchor": "start"},
    "text": {"color": INK},
}
"""What all charts share."""


@dataclass(frozen=True)
class Look:
    """How a group's series and numbers look.

    Args:
        names: the series in order; their place decides colour, dash and shape.
        form: the number format (d3) of the reported metric, one of `FORMS`.
    """

    names: Sequence[str]
    form: str

    def _scale(self, values: Sequence[Any]) -> Spec:
        shown = [values[place % len(values)] for place in range(len(self.names))]
        return {"field": "v", "type": "nominal", "scale": {"domain": self.names, "range": shown}}

    @property
    def colour(self) -> Spec:
        """The colour channel."""
        return {**self._scale([f"var(--s{n})" for n in range(COLOURS)]), "legend": None}

    @property
    def dash(self) -> Spec:
        """The dash channel."""
        return {**self._scale(DASHES), "legend": None}

    @property
    def shape(self) -> Spec:
        """The shape channel."""
        return {**self._scale(SHAPES), "legend": None}


def tip(field: str, title: str, form: str | None = None) -> Spec:
    """Return one line of a tooltip."""
    kind = "nominal" if form is None else "quantitative"
    return {"field": field, "title": title, "type": kind, **({"format": form} if form else {})}


def height_of(rows: int) -> int:
    """Return the height of a chart with a row for each series, closer together when many."""
    return (26 if rows <= 12 else 14) * rows


def lines(
    look: Look,
    rows: Rows,
    data: str,
    *,
    x: str = "r",
    x_title: str = "round",
    y_title: str,
    form: str,
    height: int,
) -> Spec:
    """Lines with bands: ``m`` between ``lo`` and ``hi`` over ``x``, one line a series.

    The y axis is logarithmic when the means are positive and span more than two decades.
    """
    means = [row["m"] for row in rows]
    log = min(means) > 0 and max(means) / min(means) > 100
    y: Spec = {
        "field": "m",
        "type": "quantitative",
        "title": y_title,
        "axis": {"format": form.replace(".1%", "~%"), "tickCount": 5},
        "scale": {"type": "log"} if log else {"zero": False},
    }
    rounds = sorted({row["r"] for row in rows})
    # A band below zero has no place on a logarithmic axis.
    floor = [{"calculate": f"max(datum.lo, {min(means)})", "as": "lo"}] if log else []
    where: Spec = {"x": _x_of_lines(x, x_title, rounds[-1]), "y": y, "color": look.colour}
    return {
        "data": {"name": data},
        "height": height,
        "layer": [
            {
                "transform": floor,
                "mark": {"type": "area", "opacity": 0.15},
                "encoding": {**where, "y": {**y, "field": "lo"}, "y2": {"field": "hi"}},
            },
            {
                "mark": {"type": "line", "strokeWidth": 1.8},
                "encoding": {**where, "strokeDash": look.dash},
            },
            {
                "transform": [{"filter": _marked(rounds)}],
                "mark": {"type": "point", "filled": True, "size": 36, "opacity": 1},
                "encoding": {**where, "shape": look.shape},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 150, "opacity": 0},
                "encoding": {**where, "tooltip": _tips_of_lines(x, form)},
            },
        ],
    }


def _marked(rounds: Sequence[int]) -> str:
    """Return which rounds have marks: about ten, the last among them; more would hide the line."""
    step = max(1, round(len(rounds) / 10))
    return f"indexof({sorted({1, *rounds[::-step]})}, datum.r) >= 0"


def _x_of_lines(x: str, title: str, last: int) -> Spec:
    """Return the x axis of `lines`: rounds (``r``), bytes (``b``), or seconds (``s``, ``t``)."""
    axis: Spec = {"grid": False, "tickCount": 6}
    axis |= {"format": "~s"} if x == "b" else {}
    axis |= {"tickMinStep": 1, "format": "d"} if x == "r" else {}
    scale = {"domainMin": min(1, last - 1) if x == "r" else 0, "nice": False}
    return {"field": x, "type": "quantitative", "title": title, "axis": axis, "scale": scale}


def _tips_of_lines(x: str, form: str) -> list[Spec]:
    tips = [tip("v", "variant"), tip("r", "round"), tip("m", "mean", form)]
    tips += [tip("lo", "band from", form), tip("hi", "to", form), tip("n", "seeds")]
    tips += [tip("b", "bytes so far", ".4~s")] if x == "b" else []
    tips += [tip("s", "seconds so far", ".1f")] if x == "s" else []
    tips += [tip("t", "virtual seconds so far", ".1f")] if x == "t" else []
    return tips


def bars(
    look: Look,
    columns: Sequence[str],
    rows: Rows,
    data: str,
    dots: str,
    *,
    y_title: str,
    ends: tuple[float, float],
) -> Spec:
    """Bars by domain (``d``), one a series, with interval lines and a dot for each seed.

    ``ends`` are the ends of the y axis; an interval beyond them is cut.
    """
    y: Spec = {
        "field": "m",
        "type": "quantitative",
        "title": y_title,
        "axis": {"format": look.form.replace(".1%", "~%"), "tickCount": 6},
        "scale": {"domain": list(ends), "nice": False},
    }
    where: Spec = {
        "x": _x_of_bars(columns),
        "xOffset": {"field": "v", "sort": list(look.names), "scale": {"paddingInner": 0.12}},
    }
    tips = [tip("v", "variant"), tip("d", "domain"), tip("m", "mean", look.form)]
    tips += [tip("lo", "95 % from", look.form), tip("hi", "to", look.form), tip("n", "seeds")]
    seed = [tip("v", "variant"), tip("seed", "seed"), tip("m", "value", look.form)]
    return {
        "data": {"name": data},
        "height": 280,
        "layer": [
            {
                "mark": {"type": "bar", "clip": True, "opacity": 0.8},
                "encoding": {**where, "y": y, "color": look.colour, "tooltip": tips},
            },
            *_interval(rows, {"clip": True, "strokeWidth": 1.4, "color": INK}, where, "y", y),
            {
                "data": {"name": dots},
                "mark": {"type": "point", "clip": True, "filled": True, "size": 14, "color": INK},
                "encoding": {**where, "y": y, "tooltip": seed},
            },
        ],
    }


def _x_of_bars(columns: Sequence[str]) -> Spec:
    crowded = sum(map(len, columns)) > 60
    axis = {"labelAngle": -35 if crowded else 0, "ticks": False, "labelPadding": 6}
    return {
        "field": "d",
        "type": "nominal",
        "sort": list(columns),
        "title": None,
        "axis": axis if len(columns) > 1 else None,
        "scale": {"paddingInner": 0.25, "paddingOuter": 0.1},
    }


def _interval(rows: Rows, mark: Spec, where: Spec, axis: str, channel: Spec) -> list[Spec]:
    """Return the layer that draws ``lo`` to ``hi``; none when no row has an interval."""
    if not any("lo" in row for row in rows):
        return []
    ends = {axis: {**channel, "field": "lo"}, f"{axis}2": {"field": "hi"}}
    return [
        {
            "transform": [{"filter": "isValid(datum.lo)"}],
            "mark": {"type": "rule", **mark},
            "encoding": {**where, **ends},
        }
    ]


def forest(look: Look, rows: Rows, data: str, x_title: str) -> Spec:
    """Differences with their intervals, a row for each series; filled where significant."""
    x: Spec = {
        "field": "m",
        "type": "quantitative",
        "title": x_title,
        "axis": {"format": "+.4~g", "tickCount": 6},
    }
    where: Spec = {
        "y": {
            "field": "v",
            "type": "nominal",
            "sort": list(look.names),
            "title": None,
            "axis": {"grid": False, "ticks": False, "domain": False, "labelColor": INK},
        },
        "color": look.colour,
    }
    tips = [tip("v", "variant"), tip("m", "difference", "+.2f"), tip("lo", "95 % from", "+.2f")]
    tips += [tip("hi", "to", "+.2f"), tip("p", "p (Holm)"), tip("n", "seeds")]
    filled = {"test": "datum.clear", **look.colour}
    return {
        "data": {"name": data},
        "height": 12 + height_of(len(rows)),
        "layer": [
            {
                "mark": {"type": "rule", "color": MUTED, "strokeDash": [3, 3]},
                "encoding": {"x": {"datum": 0}},
            },
            *_interval(rows, {"strokeWidth": 2}, where, "x", x),
            {
                "mark": {"type": "point", "size": 80, "strokeWidth": 2, "opacity": 1},
                "encoding": {
                    **where,
                    "x": x,
                    "shape": look.shape,
                    "fill": {"condition": filled, "value": PAGE},
                    "tooltip": tips,
                },
            },
        ],
    }


def heat(
    data: str,
    rows: Rows,
    y: Spec,
    classes: Sequence[str],
    tips: Sequence[Spec],
    *,
    domain: tuple[float, float],
    text: str,
    height: float,
    x_title: str = "class",
) -> Spec:
    """A cell for each class (``c``) and place of ``y``, darker for less; numbers while they fit.

    ``text`` is the expression of a cell's number, ``x_title`` what ``c`` is.
    """
    step = height / len({row[y["field"]] for row in rows})
    line = 1 if step > 8 and len(classes) <= 40 else 0
    plain = {"grid": False, "ticks": False, "domain": False, "labelOverlap": "greedy"}
    classes_axis = {**plain, "labelAngle": 0, "labelBound": True, "labelSeparation": 8}
    x: Spec = {"field": "c", "type": "nominal", "sort": list(classes), "title": x_title}
    x |= {"axis": classes_axis, "scale": {"domain": list(classes)}}
    where: Spec = {"x": x, "y": {"type": "nominal", **y, "axis": plain}}
    colour: Spec = {
        "field": "m",
        "type": "quantitative",
        "scale": {"scheme": "viridis", "domain": list(domain)},
        "legend": None,
    }
    cells: Spec = {
        "mark": {"type": "rect", "stroke": PAGE, "strokeWidth": line},
        "encoding": {**where, "color": colour, "tooltip": list(tips)},
    }
    layers = [cells]
    if len(classes) <= 12 and step >= 14:
        light = f"datum.m > {domain[0] + 0.6 * (domain[1] - domain[0])}"
        layers.append(
            {
                "transform": [{"calculate": text, "as": "text"}],
                "mark": {"type": "text", "fontSize": 9.5},
                "encoding": {
                    **where,
                    "text": {"field": "text", "type": "nominal"},
                    "color": {"condition": {"test": light, "value": "#000"}, "value": "#fff"},
                },
            }
        )
    return {"data": {"name": data}, "height": height, "layer": layers}
