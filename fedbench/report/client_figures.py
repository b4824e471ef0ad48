"""The figures of clients' scores: how they spread, which are worst, and whether size matters.

Each shows the reported metric in the last round that the accuracy rule counts, for every client
that holds data out; `populations` shows the other means of the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from ..config.model import Accuracy
from ..engine.evaluation import client_view, view
from ..splits import SPLITS
from ..study.analysis import Group
from ..types import ClientScores, RoundResult
from . import narrow, series, specs
from .figure import Figure, Panel, Pick, look, mean_of, metric_name, noted, small_charts, with_rows
from .series import Rows, short
from .specs import Look, Spec, tip

STEPS = 100
"""Intervals of a distribution over many clients."""
WORST = 20
"""Clients in the figure of the worst ones."""


def clients(group: Group) -> list[Figure]:
    """Return the figures of clients' scores; none for runs that kept no client's score."""
    found = series.client_scores(group)
    if not found:
        return []
    return noted([_distribution(group, found), _worst(group, found), _sizes(group, found)])


def _where(group: Group) -> str:
    rule = Accuracy(**group.setting["accuracy"])
    return f"on the {rule.split} data that each client holds out, in the last round that counts"


def _distribution(group: Group, found: series.ClientValues) -> Figure:
    rows: Rows = []
    for variant, by_seed in found.items():
        values = sorted(value for one in by_seed.values() for value in one.values())
        steps = min(STEPS, len(values) - 1) or 1
        rows += [
            {
                "v": variant,
                "q": short(n / steps),
                "m": short(values[n * (len(values) - 1) // steps]),
            }
            for n in range(steps + 1)
        ]
    spec = _curve(look(group), rows, "clients", group.metric)
    return Figure(
        "clients",
        "clients",
        f"{metric_name(group)} over clients",
        f"Clients of all seeds in ascending order, {_where(group)}.",
        [Panel("", spec, True)],
        {"clients": rows},
        with_rows(group, rows),
    )


def _worst(group: Group, found: series.ClientValues) -> Figure:
    seed = min(seed for by_seed in found.values() for seed in by_seed)
    values = {v: by_seed[seed] for v, by_seed in found.items() if seed in by_seed}
    everyone = sorted({client for one in values.values() for client in one})
    means = {c: fmean(one[c] for one in values.values() if c in one) for c in everyone}
    order = sorted(everyone, key=lambda c: means[c], reverse=not group.higher_is_better)[:WORST]
    names = list(map(str, order))
    rows: Rows = [
        {"v": v, "c": str(c), "m": short(one[c])}
        for v, one in values.items()
        for c in order
        if c in one
    ]
    drawn = [row["m"] for row in rows]
    ends = (0.0, 1.0) if group.unit == "percent" else (min(drawn), max(drawn))
    spec = specs.heat(
        "worst-clients",
        rows,
        {"field": "v", "sort": list(group.variants), "title": None},
        names,
        [tip("v", "variant"), tip("c", "client"), tip("m", group.metric, look(group).form)],
        domain=ends,
        text=specs.CELLS[group.unit],
        height=specs.height_of(len(values)),
        x_title="client",
    )
    percent = "percent, " if group.unit == "percent" else ""
    return Figure(
        "worst-clients",
        "clients",
        "Worst clients",
        f"Of {len(everyone)} clients under seed {seed}, the {len(order)} with the worst mean over "
        f"variants, worst first; {percent}{_where(group)}.",
        [Panel("", spec, True)],
        {"worst-clients": rows},
    )


def _sizes(group: Group, found: series.ClientValues) -> Figure | None:
    tables = {r.seed: r.partition for r in group.records if r.partition}
    sizes = {
        seed: {client: sum(map(sum, held.values())) for client, held in table.counts.items()}
        for seed, table in tables.items()
    }
    rows: Rows = [
        {"v": v, "x": sizes[seed][client], "m": short(value), "k": client, "seed": seed}
        for v, by_seed in found.items()
        for seed, one in by_seed.items()
        for client, value in one.items()
        if client in sizes.get(seed, {})
    ]
    if not rows:
        return None
    every = -(-len(rows) // narrow.DOTS)
    rows = [row for row in rows if row["k"] % every == 0]
    spec = _scatter(look(group), rows, "client-sizes", "examples of the client", group.metric)
    figure = Figure(
        "client-sizes",
        "clients",
        f"{metric_name(group)} against client size",
        f"A mark for each client and seed, {_where(group)}.",
        [Panel("", spec, True)],
        {"client-sizes": rows},
        with_rows(group, rows),
    )
    return noted([figure], f"One client in {every}." if every > 1 else "")[0]


def _curve(look: Look, rows: Rows, data: str, y_title: str) -> Spec:
    """A line for each series: the value ``m`` at each share ``q`` of the clients in order."""
    axis = {"format": ".0%", "grid": False, "tickCount": 6}
    where: Spec = {
        "x": {"field": "q", "type": "quantitative", "title": "share of clients", "axis": axis},
        "y": _y_axis(look, y_title),
        "color": look.colour,
    }
    tips = [tip("v", "variant"), tip("q", "share of clients", ".0%"), tip("m", "value", look.form)]
    return {
        "data": {"name": data},
        "height": 240,
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 1.8},
                "encoding": {**where, "strokeDash": look.dash},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 150, "opacity": 0},
                "encoding": {**where, "tooltip": tips},
            },
        ],
    }


def _scatter(look: Look, rows: Rows, data: str, x_title: str, y_title: str) -> Spec:
    """A mark for each row at (``x``, ``m``); x is logarithmic over more than two decades."""
    sizes = [row["x"] for row in rows]
    log = min(sizes) > 0 and max(sizes) / min(sizes) > 100
    x: Spec = {
        "field": "x",
        "type": "quantitative",
        "title": x_title,
        "axis": {"grid": False, "tickCount": 6, "format": "~s"},
        "scale": {"type": "log"} if log else {"zero": False},
    }
    tips = [tip("v", "variant"), tip("k", "client", "d"), tip("seed", "seed", "d")]
    tips += [tip("x", x_title, "d"), tip("m", "value", look.form)]
    mark = {"type": "point", "filled": True, "size": 60, "opacity": 0.7}
    encoding = {"x": x, "y": _y_axis(look, y_title), "color": look.colour, "shape": look.shape}
    layer = {"mark": mark, "encoding": {**encoding, "tooltip": tips}}
    return {"data": {"name": data}, "height": 280, "layer": [layer]}


def _y_axis(look: Look, title: str) -> Spec:
    """Return the y axis of the reported metric's values (``m``)."""
    axis = {"format": look.form.replace(".1%", "~%"), "tickCount": 6}
    return {"field": "m", "type": "quantitative", "title": title, "axis": axis}


def populations(group: Group) -> Figure | None:
    """Return the means over domains and clients that are not the reported one, over rounds."""
    rule = Accuracy(**group.setting["accuracy"])
    picks: dict[str, Pick] = {}
    for split in SPLITS:
        if (rule.population, rule.split) != ("domains", split):
            one = replace(rule, population="domains", split=split)
            picks[f"{split} data, mean over domains"] = _mean(one), group.unit
        one = replace(rule, population="clients", split=split)
        if (rule.population, rule.split) != ("clients", split):
            picks[f"{split} data, mean over clients"] = _mean(one), group.unit
        picks[f"{split} data, plain mean over clients"] = _over(one, _plain), group.unit
        picks[f"{split} data, worst tenth of clients"] = _over(one, _tenth), group.unit
    caption = f"On what domains and clients hold, by split: {mean_of(group)}."
    title = f"{metric_name(group)}, other populations"
    return small_charts(group, "populations", title, caption, picks)


def _mean(rule: Accuracy) -> Callable[[RoundResult], float | None]:
    def pick(one: RoundResult) -> float | None:
        found = view(one, rule)
        return found.mean if found else None

    return pick


def _over(
    rule: Accuracy, of: Callable[[ClientScores], float]
) -> Callable[[RoundResult], float | None]:
    def pick(one: RoundResult) -> float | None:
        found = client_view(one, rule)
        return of(found) if found else None

    return pick


def _plain(found: ClientScores) -> float:
    return found.plain


def _tenth(found: ClientScores) -> float:
    return found.worst_tenth
