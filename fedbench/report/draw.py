"""Figures as PNG and SVG, and the JavaScript that draws them in a page; no network.

Both come from `fedbench.report.child`, a process of its own that may end or hang without harm: what
it did not draw is missing, with the reason in one line.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FedbenchError
from ..text import all_printable, last_words, summary
from . import specs
from .figure import Figure, Panel
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


PROGRAM = Path(__file__).with_name("child.py")
SECONDS, SECONDS_EACH = 60, 10
"""How long the child may take to start, and for each task."""


class NotDrawn(FedbenchError):
    """A picture, or the script that draws in a page, could not be made."""


@dataclass(frozen=True)
class Pictures:
    """What the child drew.

    Args:
        files: file name, with its suffix -> content.
        missing: name of a figure that was not drawn -> the reason, on one line.
    """

    files: Mapping[str, bytes]
    missing: Mapping[str, str]


def pictures(figures: Mapping[str, Figure]) -> Pictures:
    """Draw figures, each as ``NAME.svg`` and ``NAME.png`` with two pixels a point.

    Args:
        figures: name -> figure.
    """
    files: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    answers = _child([{"draw": paper(figure)} for figure in figures.values()])
    for name, answer in zip(figures, answers, strict=True):
        if "error" in answer:
            missing[name] = answer["error"]
        else:
            files[f"{name}.png"] = base64.b64decode(answer["png"])
            files[f"{name}.svg"] = answer["svg"].encode()
    return Pictures(files, missing)


@functools.cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets ``vegaEmbed``.

    Raises:
        NotDrawn: when the child cannot make it.
    """
    (answer,) = _child([{"bundle": "window.vegaEmbed = vegaEmbed;"}])
    if "error" in answer:
        raise NotDrawn(answer["error"])
    return answer["text"]


def _child(tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the answers of `fedbench.report.child`, an ``error`` for each task not done."""
    if not tasks:
        return []
    # -P: no module of the folder that the user is in.
    command = [sys.executable or "", "-P", str(PROGRAM)]
    given = json.dumps([os.getpid(), tasks]).encode()
    limit = SECONDS + SECONDS_EACH * len(tasks)
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=limit, check=False)
        out, why = done.stdout, _ended(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as error:
        out, why = error.stdout or b"", f"drawing took longer than {limit} s"
    except (OSError, ValueError) as error:
        out, why = b"", f"the process that draws cannot be started: {summary(error)}"
    # A line that is not whole was being written when the process ended.
    answers = [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith(b"\n")]
    for answer in answers:
        if "error" in answer:
            answer["error"] = summary(answer["error"])
    return answers + [{"error": why}] * (len(tasks) - len(answers))


def _ended(status: int, said: bytes) -> str:
    """Return in words why a process ended before all was drawn."""
    if status < 0:
        name = signal.strsignal(-status) or f"signal {-status}"
        return f"the process that draws was ended ({name}), as a limit on memory may do"
    said_last = last_words(said.decode(errors="replace"))
    return f"the process that draws ended: {said_last or f'exit status {status}'}"


def coloured(spec: Spec) -> Any:
    """Return a spec with the colours of `PAPER` in place of CSS variables."""
    text = re.sub(r"var\(--(\w+)\)", lambda found: PAPER[found[1]], json.dumps(spec))
    return json.loads(text)


def paper(figure: Figure, tooltips: bool = False) -> Spec:
    """Return the figure as one spec with data, colours, legend and notes; texts are printable.

    Args:
        figure: the figure.
        tooltips: whether to keep the invisible marks that carry tooltips, which files do not have.
    """
    wide = [_sized(panel, WIDE, tooltips) for panel in figure.panels if panel.wide]
    small = [_sized(panel, SMALL, tooltips) for panel in figure.panels if not panel.wide]
    rest: list[Spec] = [{"concat": small, "columns": COLUMNS, "spacing": 24}] if small else []
    plain = coloured({"vconcat": [*wide, *rest], "config": {**specs.CONFIG, "font": FONT}})
    plain["config"]["background"] = PAPER["page"]
    if figure.legend and not figure.labelled:
        _legend(plain["vconcat"], list(figure.legend))
    if figure.notes:
        text = textwrap.wrap(" ".join(figure.notes), WIDE // 6)
        look = {"fontWeight": "normal", "color": PAPER["muted"], "offset": 12}
        plain["title"] = {"text": text, **look}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        **plain,
        "datasets": figure.data,
        "padding": 8,
    }
    return dict(all_printable(spec))


def _sized(panel: Panel, width: int, tooltips: bool) -> Spec:
    title = {"title": panel.title} if panel.title else {}
    layers = [
        layer for layer in panel.spec["layer"] if tooltips or layer["mark"].get("opacity") != 0
    ]
    # A shape in the legend would take the place of the line that shows the dash.
    resolve = {**panel.spec.get("resolve", {}), "legend": {"shape": "independent"}}
    return {**panel.spec, "layer": layers, **title, "width": width, "resolve": resolve}


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
