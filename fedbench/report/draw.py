"""Figures as PNG and SVG files, and the JavaScript that draws them in a page; no network."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import vl_convert

from . import specs
from .figures import Figure, Panel
from .specs import Spec

PAPER = {
    "ink": "#1a1c1f",
    "muted": "#4b5158",
    "axis": "#9aa1a9",
    "grid": "#e4e7ea",
    "page": "#ffffff",
    "s0": "#0072b2",
    "s1": "#d55e00",
    "s2": "#009e73",
    "s3": "#cc79a7",
    "s4": "#e69f00",
    "s5": "#56b4e9",
    "s6": "#000000",
}
"""Colours in files: Okabe and Ito's, without the yellow that white paper swallows."""

FONT = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
WIDE, SMALL, COLUMNS = 560, 240, 2


def png(figure: Figure) -> bytes:
    """Return the figure as PNG, at two pixels a point."""
    return bytes(vl_convert.vegalite_to_png(paper(figure), scale=2))


def svg(figure: Figure) -> str:
    """Return the figure as SVG."""
    return str(vl_convert.vegalite_to_svg(paper(figure)))


@functools.cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets ``vegaEmbed``."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def coloured(spec: Spec) -> Any:
    """Return a spec with the colours of `PAPER` in place of CSS variables."""
    text = re.sub(r"var\(--(\w+)\)", lambda found: PAPER[found[1]], json.dumps(spec))
    return json.loads(text)


def paper(figure: Figure) -> Spec:
    """Return the figure as one spec with data, colours and a legend."""
    wide = [_sized(panel, WIDE) for panel in figure.panels if panel.wide]
    small = [_sized(panel, SMALL) for panel in figure.panels if not panel.wide]
    rest: list[Spec] = [{"concat": small, "columns": COLUMNS, "spacing": 24}] if small else []
    plain = coloured({"vconcat": [*wide, *rest], "config": {**specs.CONFIG, "font": FONT}})
    plain["config"]["background"] = PAPER["page"]
    if figure.legend and not figure.labelled:
        _legend(plain["vconcat"], list(figure.legend))
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        **plain,
        "datasets": dict(figure.data),
        "padding": 8,
    }


def _sized(panel: Panel, width: int) -> Spec:
    title = {"title": panel.title} if panel.title else {}
    # A shape in the legend would take the place of the line that shows the dash.
    resolve = {"legend": {"shape": "independent"}}
    return {**panel.spec, **title, "width": width, "resolve": resolve}


def _legend(panels: list[Spec], shown: list[str]) -> None:
    """Let the first panel show the series, lines by colour and dash; concat shares the scales."""
    first = panels[0]["concat"][0] if "concat" in panels[0] else panels[0]
    letters = max(map(len, shown))
    columns = max(1, min(len(shown), WIDE // (7 * letters + 40)))
    legend: Spec = {"title": None, "values": shown, "columns": columns, "symbolOpacity": 1}
    if any("strokeDash" in layer["encoding"] for layer in first["layer"]):
        legend |= {"symbolType": "stroke", "symbolSize": 400, "rowPadding": 0}
    for layer in first["layer"]:
        for channel in ("color", "strokeDash"):
            if "scale" in layer["encoding"].get(channel, {}):
                layer["encoding"][channel]["legend"] = legend
