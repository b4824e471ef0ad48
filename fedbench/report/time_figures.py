"""The figures of runs under a clock: who was at work when, and how late the updates were."""

from __future__ import annotations

from collections import Counter

from ..study.analysis import Group
from ..study.records import Record
from ..types import Turn
from . import narrow, series, specs
from .figure import Figure, Panel, look, noted, with_rows
from .series import Rows, short
from .specs import Look, Spec, tip

CLIENTS, TURNS = 40, 400
"""The most clients and turns in a chart of turns: more could not be told apart."""

OUTCOMES = ("used", "failed", "dropped")
COLOURS = ("var(--s0)", "var(--ink)", "var(--s1)")


def times(group: Group) -> list[Figure]:
    """Return the figures of virtual time; none for runs without a clock."""
    timed = {
        variant: runs
        for variant, runs in series.finished(group).items()
        if any(one.turns for run in runs for one in run.rounds)
    }
    if not timed:
        return []
    first = {variant: runs[0] for variant, runs in timed.items()}
    return noted([_turns(first), _staleness(group, timed)])


def _turns(runs: dict[str, Record]) -> Figure:
    """Return the chart of the clients' turns at the beginning of a run of each variant."""
    panels, data, left_out = [], {}, False
    shown = list(runs.items())[: narrow.PANELS]
    for place, (variant, run) in enumerate(shown):
        rows, whole = _bars(run)
        left_out |= not whole
        name = f"turns-{place}"
        data[name] = rows
        panels.append(Panel(variant if len(runs) > 1 else "", _gantt(name, rows), True))
    seed = next(iter(runs.values())).seed
    figure = Figure(
        "turns",
        "clients",
        "Clients at work over virtual time",
        f"A bar for each turn, from its start to its answer, under seed {seed}: used in an update, "
        "failed, or dropped because it was late.",
        panels,
        data,
    )
    limits = f"The first {TURNS} turns of up to {CLIENTS} clients." if left_out else ""
    return noted([figure], limits)[0]


def _bars(run: Record) -> tuple[Rows, bool]:
    """Return the bars of a run's first turns, and whether they are all of its turns."""
    turns = [(one.round, turn) for one in run.rounds for turn in one.turns]
    everyone = sorted({turn.client for _, turn in turns})
    every = -(-len(everyone) // CLIENTS)
    chosen = set(everyone[::every])
    kept = [(number, turn) for number, turn in turns if turn.client in chosen][:TURNS]
    return [_bar(number, turn) for number, turn in kept], len(kept) == len(turns)


def _bar(number: int, turn: Turn) -> dict[str, object]:
    return {
        "k": turn.client,
        "x": short(turn.start),
        "x2": short(turn.end),
        "o": turn.outcome,
        "r": number,
        "m": number - turn.round,
    }


def _gantt(data: str, rows: Rows) -> Spec:
    """A bar for each turn of each client (``k``), from ``x`` to ``x2``, coloured by outcome."""
    clients = sorted({row["k"] for row in rows})
    x: Spec = {
        "field": "x",
        "type": "quantitative",
        "title": "virtual seconds",
        "axis": {"grid": False, "tickCount": 6},
        "scale": {"zero": True, "nice": False},
    }
    y: Spec = {"field": "k", "type": "nominal", "sort": clients, "title": "client"}
    y["axis"] = {"grid": False, "ticks": False, "domain": False, "labelOverlap": "greedy"}
    tips = [tip("k", "client", "d"), tip("x", "from", ".1f"), tip("x2", "to", ".1f")]
    tips += [tip("o", "outcome"), tip("r", "ended in round", "d"), tip("m", "rounds late", "d")]
    colour = {"domain": list(OUTCOMES), "range": list(COLOURS)}
    present = [outcome for outcome in OUTCOMES if any(row["o"] == outcome for row in rows)]
    legend = {"title": None, "values": present} if len(present) > 1 else None
    encoding: Spec = {
        "x": x,
        "x2": {"field": "x2"},
        "y": y,
        "color": {"field": "o", "type": "nominal", "scale": colour, "legend": legend},
        "tooltip": tips,
    }
    mark = {"type": "bar", "height": {"band": 0.7}, "stroke": specs.PAGE, "strokeWidth": 1}
    layer = {"mark": mark, "encoding": encoding}
    return {"data": {"name": data}, "height": max(60, 13 * len(clients)), "layer": [layer]}


def _staleness(group: Group, timed: dict[str, list[Record]]) -> Figure | None:
    """Return the shares of used updates by the rounds that they were late; none if none was."""
    rows: Rows = []
    for variant, runs in timed.items():
        late = Counter(
            one.round - turn.round
            for run in runs
            for one in run.rounds
            for turn in one.turns
            if turn.outcome == "used"
        )
        total = sum(late.values())
        rows += [
            {"v": variant, "x": number, "m": short(count / total), "n": count}
            for number, count in sorted(late.items())
        ]
    if all(row["x"] == 0 for row in rows):
        return None
    return Figure(
        "staleness",
        "clients",
        "Staleness of the updates that were used",
        "How many rounds ended between a client's start and the round that used its update; "
        "shares over all rounds and seeds.",
        [Panel("", _histogram(look(group), rows, "staleness"), True)],
        {"staleness": rows},
        with_rows(group, rows),
    )


def _histogram(look: Look, rows: Rows, data: str) -> Spec:
    """Bars beside each other at each ``x``, one a series, as high as the share ``m``."""
    x: Spec = {"field": "x", "type": "ordinal", "title": "rounds late", "axis": {"labelAngle": 0}}
    x["scale"] = {"domain": list(range(max(row["x"] for row in rows) + 1))}
    y: Spec = {"field": "m", "type": "quantitative", "title": "share of updates"}
    y["axis"] = {"format": "~%", "tickCount": 5}
    tips = [tip("v", "variant"), tip("x", "rounds late", "d"), tip("m", "share", ".1%")]
    tips.append(tip("n", "updates", "d"))
    encoding: Spec = {
        "x": x,
        "xOffset": {"field": "v", "sort": list(look.names)},
        "y": y,
        "color": look.colour,
        "tooltip": tips,
    }
    layer = {"mark": {"type": "bar", "opacity": 0.85}, "encoding": encoding}
    return {"data": {"name": data}, "height": 200, "layer": [layer]}
