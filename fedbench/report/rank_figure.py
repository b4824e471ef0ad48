"""Mean ranks as a critical-difference diagram (Demsar, Journal of Machine Learning Research 2006).

Every method hangs from an axis of mean ranks, the better half on the left. A bar joins methods
among which no difference is significant.
"""

from __future__ import annotations

from ..study.analysis import Analysis, Group
from ..study.statistics import Ranks, not_told_apart
from .content import listed
from .figure import Figure, Panel
from .matrix import variants_of
from .series import Rows
from .specs import INK, MUTED, Spec, tip

AXIS, BAR, GAP = 46, 7, 12
"""Pixels: above the axis, for a bar, between bars and names."""
LETTERS = 160
"""Pixels of a name; longer ones are cut, but whole in the tooltips."""


def over_settings(analysis: Analysis) -> Figure | None:
    """Return the diagram over all settings; ``None`` where there are too few for the test."""
    ranks = analysis.ranks
    if ranks is None or ranks.p is None:
        return None
    what = "Mean rank over the settings, each ranked by the mean over its seeds"
    return _figure(ranks, what, variants_of(analysis.groups))


def over_seeds(group: Group) -> Figure | None:
    """Return the diagram over the seeds of a setting; ``None`` where they are too few."""
    ranks = group.ranks
    return None if ranks is None or ranks.p is None else of_seeds(ranks, list(group.variants))


def of_seeds(ranks: Ranks, variants: list[str]) -> Figure:
    """Return the diagram of ranks over seeds.

    Args:
        ranks: with the p of the Friedman test.
        variants: all that were compared, also those that have no rank.
    """
    note = (
        "The blocks are seeds of one setting, not independent data sets: methods that differ here "
        "need not differ on other data."
    )
    return _figure(ranks, "Mean rank over the seeds of this setting", variants, note)


def _figure(ranks: Ranks, what: str, variants: list[str], *notes: str) -> Figure:
    sets = not_told_apart(ranks)
    about = [f"{ranks.note}.", *notes]
    if ranks.p is not None and ranks.p >= 0.05:
        about.append("The Friedman test does not reject at 5 %, so a single bar joins all.")
    if lacking := [variant for variant in variants if variant not in ranks.ranks]:
        few = len(lacking) <= 3
        who = listed(lacking) if few else f"{len(lacking)} of {len(variants)} variants"
        about.append(f"Without {who}: not every one of the {ranks.n} has a result.")
    title = "Mean ranks and critical difference"
    caption = (
        f"{what}; 1 is best. A bar joins methods whose mean ranks are less than the critical "
        "difference apart."
    )
    spec, data = _diagram(ranks, sets)
    panels = [Panel("", spec, True)]
    return Figure("ranks", "results", title, caption, panels, data, labelled=True, notes=about)


def _diagram(ranks: Ranks, sets: list[list[str]]) -> tuple[Spec, dict[str, Rows]]:
    """Return the chart and its data: names left and right of the axis, and bars below it."""
    means = ranks.ranks
    order = sorted(means, key=lambda name: means[name])
    middle = (len(order) + 1) // 2
    left, right = order[:middle], order[middle:][::-1]  # outermost first, so that no lines cross
    longest = len(order) - 1.0  # of the axis
    bars = _bars([(means[names[0]], means[names[-1]]) for names in sets], longest / 40)
    top = AXIS + BAR * (1 + max((bar["l"] for bar in bars), default=0)) + GAP
    height = top + (18 if len(order) <= 30 else 13) * (middle - 1) + GAP
    assert ranks.critical_difference is not None
    ruler = {
        "lo": 1.0,
        "hi": 1 + min(longest, ranks.critical_difference),
        "t": f"critical difference {ranks.critical_difference:.2f}",
    }
    data: dict[str, Rows] = {
        "ranks-left": [{"v": name, "m": means[name]} for name in left],
        "ranks-right": [{"v": name, "m": means[name]} for name in right],
        "ranks-bars": bars,
        "ranks-ruler": [ruler],
    }
    x = _x(len(order))
    spec = {
        "data": {"name": "ranks-left"},
        "height": height,
        "layer": [
            *_names("ranks-left", left, x, (top, height - GAP), "left"),
            *_names("ranks-right", right, x, (top, height - GAP), "right"),
            *_rules(x, height),
        ],
        "resolve": {"scale": {"y": "independent"}},
    }
    return spec, data


def _bars(ends: list[tuple[float, float]], gap: float) -> Rows:
    """Return bars from ``lo`` to ``hi``, each on the first line ``l`` with a gap to the others."""
    lines: list[float] = []
    rows: Rows = []
    for low, high in ends:
        free = [place for place, last in enumerate(lines) if last + gap < low]
        place = free[0] if free else len(lines)
        lines[place : place + 1] = [high]
        rows.append({"lo": low, "hi": high, "l": place})
    return rows


def _x(methods: int) -> Spec:
    every = range(1, methods + 1)
    axis = {
        "orient": "top",
        "offset": -AXIS,
        "title": None,
        "grid": False,
        "format": "d",
        "values": [rank for rank in every if methods <= 15 or rank == 1 or rank % 5 == 0],
        "labelOverlap": "greedy",
    }
    scale = {"domain": [1, methods], "nice": False, "zero": False}
    return {"field": "m", "type": "quantitative", "axis": axis, "scale": scale}


def _names(data: str, names: list[str], x: Spec, ends: tuple[int, int], side: str) -> list[Spec]:
    """Return the layers of one side: from the axis down, and to the name; and the tooltips."""
    plain = {"orient": side, "grid": False, "ticks": False, "domain": False, "labelPadding": 4}
    axis = {**plain, "title": None, "labelColor": INK, "labelLimit": LETTERS}
    y: Spec = {
        "field": "v",
        "type": "nominal",
        "scale": {"type": "point", "domain": names, "range": list(ends), "padding": 0},
    }
    named, bare = {**y, "axis": axis}, {**y, "axis": None}
    line = {"type": "rule", "color": MUTED}
    end = {"value": 0 if side == "left" else "width"}
    tips = [tip("v", "variant"), tip("m", "mean rank", ".2f")]
    return [
        {
            "data": {"name": data},
            "mark": line,
            "encoding": {"x": x, "y": bare, "y2": {"value": AXIS}},
        },
        {"data": {"name": data}, "mark": line, "encoding": {"x": x, "x2": end, "y": named}},
        {
            "data": {"name": data},
            "mark": {"type": "point", "filled": True, "size": 150, "opacity": 0},
            "encoding": {"x": x, "y": bare, "tooltip": tips},
        },
    ]


def _rules(x: Spec, height: int) -> list[Spec]:
    """Return the layers of the bars, and of the critical difference above the axis."""
    scale = {"domain": [0, height], "reverse": True, "nice": False, "zero": False}
    y: Spec = {"field": "y", "type": "quantitative", "axis": None, "scale": scale}
    where = {"x": {**x, "field": "lo"}, "x2": {"field": "hi"}, "y": y}
    ruler: Spec = {"data": {"name": "ranks-ruler"}}
    above = [{"calculate": "16", "as": "y"}]
    return [
        {
            "data": {"name": "ranks-bars"},
            "transform": [{"calculate": f"{AXIS + BAR} + {BAR} * datum.l", "as": "y"}],
            "mark": {"type": "rule", "strokeWidth": 4, "strokeCap": "round", "color": INK},
            "encoding": where,
        },
        {
            **ruler,
            "transform": above,
            "mark": {"type": "rule", "strokeWidth": 1.5, "color": INK},
            "encoding": where,
        },
        {
            **ruler,
            "transform": above,
            "mark": {"type": "text", "align": "left", "dy": -7, "fontSize": 11},
            "encoding": {"x": where["x"], "y": y, "text": {"field": "t"}},
        },
    ]
