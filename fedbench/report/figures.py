"""Which charts a setting gets, and what they say: `figures` returns them in reading order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..store.contents import Partition
from ..study.analysis import MEAN, Group
from ..text import Unit
from ..types import RoundResult
from . import narrow, series, specs
from .content import p_value, plural, sentence
from .series import Rows
from .specs import Look, Spec, tip

Pick = tuple[Callable[[RoundResult], float | None], Unit]
"""What picks a number from a round, and its unit."""

LONG = 18
"""Letters of a variant that fit beside a small chart."""


@dataclass(frozen=True)
class Panel:
    """One chart of a figure.

    Args:
        title: what sets it apart in its figure; empty for the only one.
        spec: the Vega-Lite spec without width; its data has a name of `Figure.data`.
        wide: whether it takes the whole width.
    """

    title: str
    spec: Spec
    wide: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels over shared data.

    Args:
        name: for file names.
        section: ``results``, ``classes`` or ``diagnostics``.
        title: the heading.
        caption: one sentence.
        panels: in order.
        data: name -> rows; figures of one setting that share a name share the rows.
        legend: the series shown; empty where colours don't tell series apart.
        labelled: whether an axis names the series, so that a file needs no legend.
        notes: what it leaves out because there is too much of it, a sentence each.
    """

    name: str
    section: str
    title: str
    caption: str
    panels: Sequence[Panel]
    data: Mapping[str, Rows]
    legend: Sequence[str] = ()
    labelled: bool = False
    notes: Sequence[str] = ()


def figures(group: Group) -> list[Figure]:
    """Return every figure that the group's finished runs have numbers for.

    Their notes say what they leave out because there is too much of it, see `narrow`.
    """
    group, variants, domains = narrow.narrowed(group)
    every = narrow.every(group)
    rounds = f"One round in {every}." if every > 1 else ""
    drawn = bool(series.runs_of(group))
    found: list[Figure] = []
    if drawn:
        curves = series.curves(group)
        costs = (_cost(group, curves[MEAN], key) for key in "bs")
        found += _noted([_rounds(group, curves)], variants, domains, rounds)
        found += _noted(costs, variants, rounds)
        found += _noted([_domains(group), _differences(group), *_classes(group)], variants, domains)
    found += _noted([_partition(group)])
    if drawn:
        losses, diagnostics = series.metric_names(group)
        small = (
            _metrics(group, "diagnostics", "Diagnostics over rounds", diagnostics),
            _metrics(group, "losses", "Loss terms over rounds", losses),
            _other_scores(group),
        )
        found += _noted(small, variants, rounds)
    return found


def _noted(found: Iterable[Figure | None], *notes: str) -> list[Figure]:
    """Return the figures that there are, with more notes; empty ones are none."""
    return [
        replace(figure, notes=tuple(filter(None, (*figure.notes, *notes))))
        for figure in found
        if figure
    ]


def look(group: Group) -> Look:
    """Return how the group's series look."""
    return Look(list(group.variants), specs.FORMS[group.unit])


def _name(group: Group) -> str:
    return sentence(group.metric)


def _seeds(group: Group) -> str:
    counts = sorted({len(runs) for runs in series.finished(group).values()})
    return plural(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _mean_of(group: Group) -> str:
    band = ", band: one standard deviation over seeds"
    several = any(len(runs) > 1 for runs in series.finished(group).values())
    return f"mean of {_seeds(group)}{band if several else ''}"


def _wide(group: Group) -> bool:
    """Whether names are too long to stand beside a small chart."""
    return max(map(len, group.variants)) > LONG


def _title(group: Group, column: str) -> str:
    if len(group.columns) == 1:
        return ""
    return "mean over domains" if column == MEAN else column


def _shown(group: Group, rows: Rows) -> list[str]:
    present = {row["v"] for row in rows}
    return [variant for variant in group.variants if variant in present]


def _rounds(group: Group, curves: Mapping[str, Rows]) -> Figure:
    how = look(group)
    panels, data = [], {}
    for place, column in enumerate(group.columns):
        rows, wide = curves[column], column == MEAN
        name = f"curves-{place}"
        data[name] = rows
        spec = specs.lines(
            how,
            rows,
            name,
            y_title=group.metric,
            form=how.form,
            height=300 if wide else 170,
        )
        panels.append(Panel(_title(group, column), spec, wide))
    title = f"{_name(group)} over rounds"
    caption = f"Test data after each round: {_mean_of(group)}."
    legend = _shown(group, curves[MEAN])
    return Figure("rounds", "results", title, caption, panels, data, legend)


def _cost(group: Group, rows: Rows, key: str) -> Figure:
    """Return the mean over bytes (``b``) or seconds (``s``) so far; rows as those of `_rounds`."""
    name, axis, caption = {
        "b": (
            "bytes",
            "bytes sent so far",
            "All uploads and broadcasts so far, without compression",
        ),
        "s": (
            "seconds",
            "seconds so far",
            "Wall-clock time of the rounds so far, comparable on one machine only",
        ),
    }[key]
    how = look(group)
    spec = specs.lines(
        how,
        rows,
        "curves-0",
        x=key,
        x_title=axis,
        y_title=group.metric,
        form=how.form,
        height=240,
    )
    return Figure(
        name,
        "results",
        f"{_name(group)} over {name}",
        f"{caption}: {_mean_of(group)}.",
        [Panel("", spec, True)],
        {"curves-0": rows},
        _shown(group, rows),
    )


def _domains(group: Group) -> Figure:
    bars: Rows = []
    dots: Rows = []
    for column in group.columns:
        for variant, cells in group.cells.items():
            cell = cells[column]
            if cell.summary is None:
                continue
            here = {"v": variant, "d": column}
            interval = _interval(cell.summary.low, cell.summary.high)
            bars.append({**here, "m": cell.summary.mean, "n": len(cell.values), **interval})
            dots += [{**here, "m": value, "seed": seed} for seed, value in cell.values.items()]
    ends = [row[key] for row in (*bars, *dots) for key in ("m", "lo", "hi") if key in row]
    top, bottom = max(0.0, *ends), min(0.0, *ends)
    if group.unit == "percent":
        top, bottom = min(1.0, math.ceil(10 * top) / 10), 0.0
    seeds = "dots: single seeds"
    if len(dots) > narrow.DOTS:
        dots, seeds = [], "without the single seeds, which are too many"
    spec = specs.bars(
        look(group),
        group.columns,
        bars,
        "bars",
        "dots",
        y_title=group.metric,
        ends=(bottom, top),
    )
    return Figure(
        "domains",
        "results",
        f"{_name(group)} by domain" if len(group.columns) > 1 else f"{_name(group)} by variant",
        f"Bars: mean over seeds, {group.rule}; lines: 95 % interval of the mean, cut at the "
        f"axis; {seeds}.",
        [Panel("", spec, True)],
        {"bars": bars, "dots": dots},
        _shown(group, bars),
    )


def _interval(low: float | None, high: float | None) -> dict[str, float]:
    return {} if low is None or high is None else {"lo": low, "hi": high}


def _differences(group: Group) -> Figure | None:
    percent = group.unit == "percent"
    factor, unit = (100, "percentage points") if percent else (1, group.metric)
    panels, data = [], {}
    for place, column in enumerate(group.columns):
        rows: Rows = []
        for variant, cells in group.cells.items():
            cell = cells[column]
            paired = cell.paired
            if paired is None or paired.difference is None:
                continue
            interval = _interval(paired.low, paired.high)
            rows.append(
                {
                    "v": variant,
                    "m": factor * paired.difference,
                    **{key: factor * value for key, value in interval.items()},
                    "n": paired.n,
                    "p": p_value(cell.adjusted_p),
                    "clear": cell.significant,
                }
            )
        if rows:
            name = f"differences-{place}"
            data[name] = rows
            spec = specs.forest(look(group), rows, name, f"difference, {unit}")
            panels.append(Panel(_title(group, column), spec, column == MEAN or _wide(group)))
    if not panels:
        return None
    side = "left" if group.higher_is_better else "right"
    caption = (
        f"Variant minus {group.reference}, with the 95 % interval of the paired difference: "
        f"{side} of zero is worse than {group.reference}; filled marks are significant at 5 % "
        "after Holm's correction."
    )
    title = f"Paired difference to {group.reference}"
    shown = _shown(group, [row for rows in data.values() for row in rows])
    return Figure("differences", "results", title, caption, panels, data, shown, labelled=True)


def _classes(group: Group) -> list[Figure]:
    found = []
    for number, ((inference, name), domains) in enumerate(series.class_scores(group).items()):
        values = [row["m"] for rows in domains.values() for row in rows]
        unit = group.units[name]
        ends = (0.0, 1.0) if unit == "percent" else (min(values), max(values))
        if len(group.columns) > 1:
            domains = {domain: rows for domain, rows in domains.items() if domain in group.columns}
        with_value = (row["c"] for rows in domains.values() for row in rows)
        every_class = list(dict.fromkeys((*series.class_names(group), *with_value)))
        classes, about = narrow.classes(every_class, domains)
        chosen = set(classes)
        tips = [tip("v", "variant"), tip("c", "class"), tip("m", name, specs.FORMS[unit])]
        text = specs.CELLS[unit]
        panels, data = [], {}
        for place, (domain, rows) in enumerate(domains.items()):
            key = f"classes-{number}-{place}"
            data[key] = rows = [row for row in rows if row["c"] in chosen]
            y = {"field": "v", "sort": list(group.variants), "title": None}
            high = specs.height_of(len({row["v"] for row in rows}))
            spec = specs.heat(key, rows, y, classes, tips, domain=ends, text=text, height=high)
            panels.append(Panel(domain if len(domains) > 1 else "", spec, _wide(group)))
        rule = "" if inference == "classifier" else f", {inference} inference"
        title = f"{name.replace('_', ' ').capitalize()}{rule}"
        percent = "percent, " if unit == "percent" else ""
        caption = f"{percent}{group.rule}, mean of {_seeds(group)}; darker is lower, empty is none."
        suffix = "" if number == 0 else f"-{number + 1}"
        figure = Figure(f"classes{suffix}", "classes", title, sentence(caption), panels, data)
        found += _noted([figure], about)
    return found


def _partition(group: Group) -> Figure | None:
    found = series.partition(group)
    if found is None:
        return None
    seed, table = found
    return partition_figure(
        table,
        f"Training examples by client, class and domain under seed {seed}; all variants share it. "
        "Darker is fewer, empty is none.",
    )


def partition_figure(table: Partition, caption: str) -> Figure | None:
    """Return the heat map of a partition; ``None`` for one without examples."""
    table, *about = narrow.partition(table)
    domains = series.partition_rows(table)
    if not domains:
        return None
    top = max(row["m"] for rows in domains.values() for row in rows)
    tips = [tip("k", "client"), tip("c", "class"), tip("m", "examples", "d")]
    panels, data = [], {}
    for place, (domain, rows) in enumerate(domains.items()):
        name = f"partition-{place}"
        data[name] = rows
        ids = sorted({row["k"] for row in rows})
        spec = specs.heat(
            name,
            rows,
            {"field": "k", "sort": ids, "title": "client"},
            table.classes,
            tips,
            domain=(0, top),
            text="datum.m",
            height=20 * len(ids) if len(ids) <= 16 else max(320, 5 * len(ids)),
        )
        panels.append(Panel(domain if len(domains) > 1 else "", spec))
    figure = Figure("partition", "classes", "Partition", caption, panels, data)
    return _noted([figure], *about)[0]


def _metrics(group: Group, name: str, title: str, names: Sequence[str]) -> Figure | None:
    def pick(key: str) -> Callable[[RoundResult], float | None]:
        return lambda one: one.metrics.get(key)

    caption = f"As the plugins report them, loss terms with their weights: {_mean_of(group)}."
    return _small(group, name, title, caption, {key: (pick(key), "plain") for key in names})


def _other_scores(group: Group) -> Figure | None:
    def pick(inference: str, key: str) -> Callable[[RoundResult], float | None]:
        def mean(one: RoundResult) -> float | None:
            found = one.scores.get(inference, {}).get(key)
            return found.mean if found else None

        return mean

    picks: dict[str, Pick] = {}
    for inference, key in series.other_scores(group):
        label = key if inference == "classifier" else f"{key}, {inference} inference"
        picks[label] = pick(inference, key), group.units[key]
    caption = f"Mean over domains: {_mean_of(group)}."
    return _small(group, "scores", "Other test metrics over rounds", caption, picks)


def _small(
    group: Group, name: str, title: str, caption: str, picks: Mapping[str, Pick]
) -> Figure | None:
    """Return a small chart of each number over rounds; ``None`` when there is none."""
    panels, data, legend = [], {}, set()
    for place, (label, (pick, unit)) in enumerate(list(picks.items())[: narrow.PANELS]):
        rows = series.over_rounds(group, pick)
        if not rows:
            continue
        key = f"{name}-{place}"
        data[key] = rows
        legend |= {row["v"] for row in rows}
        form = specs.FORMS[unit]
        spec = specs.lines(look(group), rows, key, y_title="", form=form, height=170)
        panels.append(Panel(label, spec))
    if not panels:
        return None
    shown = [variant for variant in group.variants if variant in legend]
    about = f"The first {narrow.PANELS} of {len(picks)}." if len(picks) > narrow.PANELS else ""
    figure = Figure(name, "diagnostics", title, caption, panels, data, shown)
    return _noted([figure], about)[0]
