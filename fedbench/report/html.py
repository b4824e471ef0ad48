"""The report as one HTML page that needs no network: text, tables, data and scripts in one file.

Jinja escapes all text, after it was made printable; data goes in as JSON with ``<`` escaped; a
content security policy keeps the page from loading anything or evaluating strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..store.contents import Result
from ..store.environment import versions
from ..store.files import json_ready
from ..study.analysis import Analysis, Group
from ..study.records import Record
from ..text import all_printable, duration, printable, size
from . import content, series, specs
from .curve_tables import curve_tables
from .figure import Figure, look
from .matrix import matrices
from .narrow import narrowed
from .part import Part
from .specs import Look

HERE = Path(__file__).parent
SECTIONS = {
    "results": "Charts",
    "clients": "Clients",
    "classes": "Classes and partition",
    "diagnostics": "Diagnostics",
}


def page(
    analysis: Analysis,
    figures: Sequence[Sequence[Figure]],
    overall: Sequence[Figure],
    script: str,
    problem: str,
    part: Part | None = None,
) -> str:
    """Return the page.

    Args:
        analysis: what it is about.
        figures: those of each group.
        overall: those of all groups together.
        script: `fedbench.report.draw.javascript`; without it the page has no charts.
        problem: why there is no script.
        part: another part of the page, which comes last.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable, "minus": content.minus}
    environment.filters |= {"sentence": content.sentence, "lines": _lines}
    groups = [
        _group(analysis, group, f"s{number}", found)
        for number, (group, found) in enumerate(zip(analysis.groups, figures, strict=True), 1)
    ]
    drawn = {"all": overall, **{f"s{n}": found for n, found in enumerate(figures, 1)}}
    if part:
        drawn[part.name] = part.figures
    return environment.get_template("page.html.jinja").render(
        title=_title(analysis),
        groups=groups,
        matrices=matrices(analysis),
        overall=[_figure(Look([], ""), "all", figure) for figure in overall],
        part=_part(part) if part else None,
        data=_script_json(all_printable(_data(drawn))),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        vega=script,
        problem=problem,
        version=versions()["fedbench-toolkit"],
        date=date.today().isoformat(),
    )


def _shown(value: Any) -> Any:
    """Return what an expression of the page shows; `Markup` is text that has passed here before."""
    return value if isinstance(value, Markup) else printable(str(value))


def _lines(text: str) -> Markup:
    """Return text that may have several lines, escaped."""
    return escape(printable(text, keep="\n"))


def breakable(text: str) -> Markup:
    """Return text, escaped, whose names may break after a separator but not within a number."""
    return Markup(re.sub(r"([:_,/]|\.(?!\d))(?=\w)", r"\1<wbr>", str(escape(printable(text)))))


def _title(analysis: Analysis) -> str:
    variants = list(dict.fromkeys(v for group in analysis.groups for v in group.variants))
    shown = content.listed(variants)
    if len(shown) > 60:
        shown = f"{len(variants)} variants"
    data = dict.fromkeys(str(group.setting["data"]["name"]) for group in analysis.groups)
    return f"{shown} on {content.listed(list(data))}"


def _data(figures: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """Return what the page's script draws, by parts of the page: charts, and each data set once."""
    charts: dict[str, Any] = {}
    data: dict[str, Any] = {}
    for key, found in figures.items():
        for figure in found:
            names = [f"{key}/{name}" for name in figure.data]
            data |= dict(zip(names, figure.data.values(), strict=True))
            for place, panel in enumerate(figure.panels):
                mine = [name for name in names if _uses(panel.spec, name.split("/")[1])]
                spec = _with_toggle(panel.spec) if figure.legend else panel.spec
                charts[f"{key}-{figure.name}-{place}"] = {"spec": spec, "data": mine}
    return {"config": specs.CONFIG, "charts": charts, "data": data}


def _uses(spec: Mapping[str, Any], name: str) -> bool:
    layers = (spec, *spec.get("layer", ()))
    return any(layer.get("data", {}).get("name") == name for layer in layers)


def _with_toggle(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec with a parameter ``hidden``: names of series to leave out."""
    keep = {"filter": "indexof(hidden, datum.v) < 0"}
    return {
        **spec,
        "params": [{"name": "hidden", "value": []}],
        "transform": [keep, *spec.get("transform", ())],
    }


def _script_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _group(analysis: Analysis, group: Group, key: str, figures: Sequence[Figure]) -> dict[str, Any]:
    table = content.table(analysis, group)
    present = {figure.section for figure in figures}
    return {
        "id": key,
        "label": group.label,
        "headline": content.headline(group),
        "facts": _facts(analysis, group),
        "table": table,
        "unsure": content.has_unsure(table),
        "curves": curve_tables(group),
        "sections": [(name, text) for name, text in SECTIONS.items() if name in present],
        "figures": [_figure(look(narrowed(group)[0]), key, figure) for figure in figures],
        "failed": [_failed(r) for r in group.records if r.status != "finished"],
        "costs": _costs(group),
        "configs": _differences(group, _configs(group)),
        "environments": _differences(group, [_environment(r) for r in group.records]),
        "digests": [_digest(group, record) for record in group.records],
    }


def _facts(analysis: Analysis, group: Group) -> Iterator[tuple[str, str]]:
    setting = group.setting
    yield "data", _choice(setting["data"])
    yield "model", _choice(setting["model"])
    ends = "" if group.stop_at is None else f", or to {content.reached_text(group)}"
    yield "rounds", f"{setting['rounds']}{ends}"
    chosen = [_choice({"name": name, **given}) for name, given in setting["plugins"].items()]
    yield "partition and client sampling", "; ".join(chosen) or content.NONE
    if "card" in setting["card"]:
        yield "card", " ".join(map(str, setting["card"].values()))
    yield "accuracy rule", f"{group.metric}, {group.rule}"
    seeds = content.seeds(group)
    run = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    yield "seeds", f"{seeds[0]} to {seeds[-1]}" if run else ", ".join(map(str, seeds))
    if group.reference:
        yield "reference", group.reference
        yield "test", content.TESTS[analysis.test] + ", Holm's correction"


def _choice(choice: Mapping[str, Any]) -> str:
    options = _options({k: v for k, v in choice.items() if k != "name"})
    return f"{choice['name']} ({options})" if options else str(choice["name"])


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in options.items())


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _part(part: Part) -> dict[str, Any]:
    return {
        "id": part.name,
        "title": part.title,
        "tables": part.tables,
        "folded": part.folded,
        "figures": [_figure(part.look, part.name, figure) for figure in part.figures],
    }


def _figure(how: Look, key: str, figure: Figure) -> dict[str, Any]:
    colour, dash, shape = (c["scale"] for c in (how.colour, how.dash, how.shape))
    places = [colour["domain"].index(name) for name in figure.legend]
    return {
        "id": f"{key}-{figure.name}",
        "section": figure.section,
        "title": figure.title,
        "caption": " ".join((figure.caption, *figure.notes)),
        "panels": [
            {"id": f"{key}-{figure.name}-{n}", "title": panel.title, "wide": panel.wide}
            for n, panel in enumerate(figure.panels)
        ],
        "two": sum(not panel.wide for panel in figure.panels) in (2, 4),
        "legend": [
            {
                "name": colour["domain"][n],
                "colour": colour["range"][n],
                "dash": ",".join(map(str, dash["range"][n])),
                "shape": shape["range"][n],
            }
            for n in places
        ],
    }


def _failed(record: Record) -> dict[str, Any]:
    return {
        "status": record.status,
        "variant": record.variant,
        "seed": record.seed,
        "rounds": f"{len(record.rounds)} of {record.config.rounds}",
        "error": record.error,
    }


def _costs(group: Group) -> dict[str, Any]:
    """Return bytes per round by key and direction, and seconds per run."""
    results = {
        variant: [run.result for run in runs if run.result]
        for variant, runs in series.finished(group).items()
    }
    keys = dict.fromkeys(key for found in results.values() for one in found for key in _sent(one))
    rows = []
    for variant, found in results.items():
        sent = list(map(_sent, found))
        each = [[one[key] for one in sent if key in one] for key in keys]
        cells = [size(fmean(values)) if values else content.NONE for values in each]
        seconds = fmean(one.seconds for one in found)
        rows.append((variant, [duration(seconds), *cells]))
    return {"columns": ["time a run", *(f"{way}: {key}" for way, key in keys)], "rows": rows}


def _sent(result: Result) -> dict[tuple[str, str], float]:
    """Return (direction, key) -> bytes per round."""
    ways = (("up", result.bytes.up), ("down", result.bytes.down))
    return {(way, key): number for way, sent in ways for key, number in sent.items()}


def _configs(group: Group) -> list[dict[str, Any]]:
    """Return the runs' configs, flat; a plugin that some lack and others share is one value."""
    configs = [dict(record.config.to_dict()) for record in group.records]
    plugins = [config.pop("plugins") for config in configs]
    flat = [content.flatten(config) for config in configs]
    for name in dict.fromkeys(name for one in plugins for name in one):
        given = [one[name] for one in plugins if name in one]
        whole = len(given) < len(plugins) and all(options == given[0] for options in given)
        for values, one in zip(flat, plugins, strict=True):
            if name in one:
                text = _options(one[name]) or "no options"
                values |= {name: text} if whole else content.flatten({name: one[name] or "in use"})
    return flat


def _environment(record: Record) -> dict[str, Any]:
    flat = content.flatten(json_ready(record.environment))
    return {k: v for k, v in flat.items() if k != "config_hash"}


def _differences(group: Group, values_of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Split the flat values of runs into those all share and those that differ, by variant."""
    flat = list(zip(group.records, values_of, strict=True))
    keys = dict.fromkeys(key for _, values in flat for key in values)
    base = group.reference or group.variants[-1]
    shared, differing = [], []
    for key in keys:
        texts = {_text(values[key]) if key in values else content.NONE for _, values in flat}
        if len(texts) == 1:
            shared.append((key, texts.pop()))
            continue
        found: dict[str, dict[int, str]] = {variant: {} for variant in group.variants}
        for record, values in flat:
            text = _text(values[key]) if key in values else content.NONE
            found[record.variant][record.seed] = text
        cells = [
            {"text": _by_seed(mine), "other": _differs(mine, found[base])}
            for mine in found.values()
        ]
        differing.append({"key": key, "cells": cells})
    return {"columns": group.variants, "base": base, "shared": shared, "differing": differing}


def _differs(mine: Mapping[int, str], base: Mapping[int, str]) -> bool:
    """Whether values differ on a seed that both have; without one, whether they differ at all."""
    shared = mine.keys() & base.keys()
    if shared:
        return any(mine[seed] != base[seed] for seed in shared)
    return set(mine.values()) != set(base.values())


def _by_seed(values: Mapping[int, str]) -> str:
    """Return one variant's values of a key: the value, or each with its seeds."""
    seeds: dict[str, list[int]] = {}
    for seed, text in sorted(values.items()):
        seeds.setdefault(text, []).append(seed)
    if len(seeds) == 1:
        return next(iter(seeds))
    if all(text == str(seed) for seed, text in values.items()):
        return ", ".join(seeds)
    return "; ".join(
        f"{text} (seed{'s' if len(which) > 1 else ''} {', '.join(map(str, which))})"
        for text, which in seeds.items()
    )


def _digest(group: Group, record: Record) -> dict[str, Any]:
    result = record.result
    return {
        "variant": record.variant,
        "seed": record.seed,
        "status": record.status,
        "mean": content.number(result.accuracy.mean, group) if result else content.NONE,
        "config": record.config.hash,
        "weights": result.weights_sha256 if result else "",
        "metrics": result.metrics_sha256 if result else "",
        "path": str(record.path),
    }
