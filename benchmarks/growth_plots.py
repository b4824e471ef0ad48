"""Plots of `growth`'s measurements, in the style of fedbench's reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from fedbench.report.draw import FONT, PAPER, coloured
from fedbench.report.specs import CONFIG

Spec = dict[str, Any]


def axis(field: str, title: str, *, log: bool = False) -> Spec:
    scale: Spec = {"type": "log"} if log else {"zero": True}
    spec: Spec = {"field": field, "type": "quantitative", "title": title, "scale": scale}
    if log:  # the marks between would run into each other
        spec["axis"] = {
            "values": [10.0**power for power in range(-3, 8)],
            "format": ",~r",
            "labelFlush": False,
        }
    return spec


def chart(
    rows: Sequence[dict[str, Any]],
    x: Spec,
    y: Spec,
    title: str,
    by: tuple[str, str] | None = None,
    target: str | None = None,
) -> Spec:
    """Return lines with a mark at each point; the column ``target`` is drawn as a dashed line."""
    names = list(dict.fromkeys(row[by[0]] for row in rows)) if by else []
    colours = [f"var(--s{n})" for n in range(len(names))]
    colour: Spec = {"value": "var(--s0)"}
    if by:
        scale = {"domain": names, "range": colours}
        colour = {"field": by[0], "type": "nominal", "title": by[1], "scale": scale}
    layers: list[Spec] = [
        {
            "mark": {"type": "line", "point": {"filled": True, "size": 50}},
            "encoding": {"x": x, "y": y, "color": colour},
        }
    ]
    if target:
        dashed = {"type": "line", "strokeDash": [5, 4], "color": "var(--muted)"}
        level = {"field": target, "type": "quantitative"}
        layers.append({"mark": dashed, "encoding": {"x": x, "y": level}})
    return {
        "data": {"values": list(rows)},
        "layer": layers,
        "title": title,
        "width": 260,
        "height": 180,
    }


def charts(result: dict[str, Any]) -> dict[str, Spec]:
    """Return the plots by file name; those without numbers are left out."""
    of = {
        name: [p for p in result["points"] if p["experiment"] == name]
        for name in ("clients", "registered", "parameters", "workers")
    }
    found: dict[str, list[Spec]] = {}
    for name, label in (("clients", "clients per round"), ("registered", "registered clients")):
        if rows := of[name]:
            x = axis(name, label, log=True)
            time = ("seconds", "seconds per round") if name == "clients" else FIRST
            scale = {"log": True} if name == "clients" else {}
            found[name] = [
                chart(rows, x, axis(*time, **scale), "Time"),
                chart(rows, x, axis("megabytes", "MB, all processes"), "Peak memory"),
            ]
    # A slope below 0 is noise. A logarithmic axis can't show it; the table does.
    if rows := [row for row in result["overhead"] if row["ms_per_client"] > 0]:
        x = axis("megabytes", "weights, MB", log=True)
        y = axis("ms_per_client", "ms per client", log=True)
        title = "Clients that train nothing; dashed: target"
        found["overhead"] = [chart(rows, x, y, title, ("executor", "executor"), "target_ms")]
    if rows := of["workers"]:
        x = axis("workers", "workers")
        x |= {"axis": {"tickMinStep": 1}, "scale": {"zero": False}}
        found["workers"] = [
            chart(rows, x, axis("seconds", "seconds per round"), "Time"),
            chart(rows, x, axis("megabytes", "MB, all processes"), "Peak memory"),
        ]
    return {name: page(specs) for name, specs in found.items()}


FIRST = ("first_round", "seconds to the end of round 1")


def page(specs: Sequence[Spec]) -> Spec:
    """Return plots side by side, coloured for white paper."""
    plain = coloured({"hconcat": list(specs), "config": {**CONFIG, "font": FONT}})
    plain["config"]["background"] = PAPER["page"]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        **plain,
        "padding": 8,
        "resolve": {"scale": {"color": "independent"}},
    }


def write(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw all plots as SVG and PNG into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, spec in charts(result).items():
        files += [folder / f"{name}.svg", folder / f"{name}.png"]
        files[-2].write_text(str(vl_convert.vegalite_to_svg(spec)))
        files[-1].write_bytes(bytes(vl_convert.vegalite_to_png(spec, scale=2)))
    return files
