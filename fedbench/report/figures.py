"""Which charts a setting gets, and what they say: `figures` returns them in reading order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ..config.model import Accuracy
from ..engine.evaluation import accuracy_text
from ..store.contents import Partition
from ..study.analysis import MEAN, Group
from ..types import RoundResult
from . import (
    client_figures,
    narrow,
    rank_figure,
    round_pictures,
    series,
    specs,
    time_figures,
)
from .content import p_value, sentence
from .figure import (
    Figure,
    Panel,
    Pick,
    long_names,
    look,
    mean_of,
    metric_name,
    noted,
    panel_title,
    seeds_text,
    small_charts,
    with_rows,
)
from .series import Rows
from .specs import tip


def figures(group: Group) -> list[Figure]:
    """Return every figure that the group's finished runs have numbers for.

    Their notes say what they leave out because there is too much of it, see `narrow`.
    """
    whole = group
    group, variants, domains = narrow.narrowed(whole)
    most = max((len(run.rounds) for run in series.runs_of(group)), default=0)
    points = narrow.points(group)
    rounds = f"At most {points} points of a line." if most > points else ""
    drawn = bool(series.runs_of(group))
    found: list[Figure] = []
    if drawn:
        curves = series.curves(group)
        timed = any("t" in row for row in curves[MEAN])
        costs = (_cost(group, curves[MEAN], key) for key in ("tbs" if timed else "bs"))
        found += noted([_rounds(group, curves)], variants, domains, rounds)
        found += noted(costs, variants, rounds)
        found += noted([_domains(group), _differences(group)], variants, domains)
        found += noted([rank_figure.over_seeds(whole)])
        found += noted(_classes(group), variants, domains)
        found += noted(client_figures.clients(group), variants)
        found += noted(time_figures.times(group), variants)
    found += noted([_partition(group)])
    if drawn:
        losses, diagnostics = series.metric_names(group)
        small = (
            _metrics(group, "diagnostics", "Diagnostics over rounds", diagnostics),
            _metrics(group, "losses", "Loss terms over rounds", losses),
            _other_scores(group),
            client_figures.populations(group),
        )
        found += noted(small, variants, rounds)
        found += noted(round_pictures.pictures(group), variants)
    return found


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
        panels.append(Panel(panel_title(group, column), spec, wide))
    title = f"{metric_name(group)} over rounds"
    caption = f"{sentence(group.scored)} after each round: {mean_of(group)}."
    legend = with_rows(group, curves[MEAN])
    return Figure("rounds", "results", title, caption, panels, data, legend)


def _cost(group: Group, rows: Rows, key: str) -> Figure:
    """Return the mean over virtual seconds (``t``), bytes (``b``) or seconds (``s``) so far."""
    name, axis, caption = {
        "b": (
            "bytes",
            "bytes sent so far",
            "All uploads and broadcasts so far, as they travel",
        ),
        "t": (
            "virtual time",
            "virtual seconds so far",
            "When the rounds so far have ended under the clock, the same on every machine",
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
        name.replace(" ", "-"),
        "results",
        f"{metric_name(group)} over {name}",
        f"{caption}: {mean_of(group)}.",
        [Panel("", spec, True)],
        {"curves-0": rows},
        with_rows(group, rows),
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
        f"{metric_name(group)} by domain"
        if len(group.columns) > 1
        else f"{metric_name(group)} by variant",
        f"Bars: mean over seeds, {group.rule}; lines: 95 % interval of the mean, cut at the "
        f"axis; {seeds}.",
        [Panel("", spec, True)],
        {"bars": bars, "dots": dots},
        with_rows(group, bars),
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
            panels.append(
                Panel(panel_title(group, column), spec, column == MEAN or long_names(group))
            )
    if not panels:
        return None
    side = "left" if group.higher_is_better else "right"
    caption = (
        f"Variant minus {group.reference}, with the 95 % interval of the paired difference: "
        f"{side} of zero is worse than {group.reference}; filled marks are significant at 5 % "
        "after Holm's correction."
    )
    title = f"Paired difference to {group.reference}"
    shown = with_rows(group, [row for rows in data.values() for row in rows])
    return Figure("differences", "results", title, caption, panels, data, shown, labelled=True)


def _classes(group: Group) -> list[Figure]:
    found = []
    accuracy = Accuracy(**{**group.setting["accuracy"], "population": "domains", "split": "test"})
    over_domains = accuracy_text(accuracy, int(group.setting["rounds"]))
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
            panels.append(Panel(domain if len(domains) > 1 else "", spec, long_names(group)))
        rule = "" if inference == "classifier" else f", {inference} inference"
        title = f"{name.replace('_', ' ').capitalize()}{rule}"
        percent = "percent, " if unit == "percent" else ""
        caption = (
            f"{percent}{over_domains}, mean of {seeds_text(group)}; darker is lower, empty is none."
        )
        suffix = "" if number == 0 else f"-{number + 1}"
        figure = Figure(f"classes{suffix}", "classes", title, sentence(caption), panels, data)
        found += noted([figure], about)
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
    return noted([figure], *about)[0]


def _metrics(group: Group, name: str, title: str, names: Sequence[str]) -> Figure | None:
    def pick(key: str) -> Callable[[RoundResult], float | None]:
        return lambda one: one.metrics.get(key)

    caption = f"As the plugins report them, loss terms with their weights: {mean_of(group)}."
    return small_charts(group, name, title, caption, {key: (pick(key), "plain") for key in names})


def _other_scores(group: Group) -> Figure | None:
    picks: dict[str, Pick] = {}
    for inference, key in series.other_scores(group):
        label = key if inference == "classifier" else f"{key}, {inference} inference"
        picks[label] = series.mean_score(inference, key), group.units[key]
    for inference, key, name in series.extra_names(group):
        label = f"{key} on {name}, {inference} inference".removesuffix(", classifier inference")
        picks[label] = series.extra_score(inference, key, name), group.units[key]
    caption = f"Mean over domains, or on an extra test set, which enters no mean: {mean_of(group)}."
    return small_charts(group, "scores", "Other test metrics over rounds", caption, picks)
