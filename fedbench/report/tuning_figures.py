"""The charts of a search: its trials in order, over each option's values, and on test data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config.yamlfile import inline
from ..study.spaces import Space
from . import narrow, specs
from .figure import Figure, Panel, noted
from .series import Rows
from .specs import INK, Look, Spec, tip

if TYPE_CHECKING:  # at run time they need Optuna, an extra
    from ..study.tuning import Tuned
    from ..study.tuning_plan import Plan


def look(plan: Plan, tuned: Sequence[Tuned]) -> Look:
    """Return how the methods look: as in the comparison, whose variants have the same order."""
    return Look([one.method for one in tuned], specs.FORMS[plan.unit])


def figures(plan: Plan, tuned: Sequence[Tuned], metric: str) -> list[Figure]:
    """Return the charts of a search that have something to show."""
    how, rows = look(plan, tuned), _rows(plan, tuned)
    if not rows:
        return []
    shown = [name for name in how.names if any(row["v"] == name for row in rows)]
    found = [
        _over_trials(how, rows, metric, shown),
        _over_options(how, rows, tuned, metric, shown),
        _on_test(how, rows, metric, shown),
    ]
    return noted(found)


def _rows(plan: Plan, tuned: Sequence[Tuned]) -> Rows:
    """Return a row for each complete trial: its scores, the best so far, its values."""
    rows = []
    for one in tuned:
        top: float | None = None
        for trial in one.trials:
            if trial.score is None:
                continue
            better = max if plan.higher_is_better else min
            top = trial.score if top is None else better(top, trial.score)
            values = {f"x{key}": _shown(one.spaces, key, trial.values[key]) for key in trial.values}
            test = {"test": one.test[trial.number]} if trial.number in one.test else {}
            rows.append(
                {
                    "v": one.method,
                    "t": trial.number,
                    "m": trial.score,
                    "top": top,
                    "chosen": trial is one.best,
                    "values": ", ".join(f"{k}={inline(v)}" for k, v in trial.values.items()),
                    **values,
                    **test,
                }
            )
    return rows


def _shown(spaces: Any, key: str, value: Any) -> Any:
    """Return a value as an axis takes it: a number of a range, else text."""
    return value if _is_range(spaces[key]) and isinstance(value, int | float) else inline(value)


def _is_range(space: Space) -> bool:
    return not space.search.choices


def _tips(how: Look) -> list[Spec]:
    return [
        tip("v", "method"),
        tip("t", "trial", "d"),
        tip("m", "validation", how.form),
        tip("values", "values"),
    ]


def _score(field: str, title: str, how: Look) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "axis": {"format": how.form.replace(".1%", "~%"), "tickCount": 5},
        "scale": {"zero": False},
    }


def _dots(how: Look, where: Spec, tips: Sequence[Spec]) -> list[Spec]:
    """Return the layers of one dot for each trial; the chosen one of each method is larger."""
    place = {**where, "color": how.colour, "shape": how.shape, "tooltip": list(tips)}
    return [
        {
            "transform": [{"filter": "!datum.chosen"}],
            "mark": {"type": "point", "filled": True, "size": 40, "opacity": 0.7},
            "encoding": place,
        },
        {
            "transform": [{"filter": "datum.chosen"}],
            "mark": {
                "type": "point",
                "filled": True,
                "size": 130,
                "opacity": 1,
                "stroke": INK,
                "strokeWidth": 1.5,
            },
            "encoding": place,
        },
    ]


def _over_trials(how: Look, rows: Rows, metric: str, shown: Sequence[str]) -> Figure:
    x: Spec = {"field": "t", "type": "quantitative", "title": "trial (0 is the default)"}
    x |= {"axis": {"grid": False, "tickMinStep": 1, "format": "d"}, "scale": {"nice": False}}
    where: Spec = {"x": x, "y": _score("m", f"validation {metric}", how)}
    best: Spec = {
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.6},
        "encoding": {
            "x": x,
            "y": {**where["y"], "field": "top"},
            "color": how.colour,
            "strokeDash": how.dash,
        },
    }
    spec = {
        "data": {"name": "search"},
        "height": 260,
        "layer": [best, *_dots(how, where, _tips(how))],
    }
    return Figure(
        "search",
        "search",
        "Trials in order",
        "A dot is a trial, the line is the best so far, the large dot is the one chosen. Failed "
        "and pruned trials have no dot.",
        [Panel("", spec, wide=True)],
        {"search": rows},
        shown,
    )


def _over_options(
    how: Look, rows: Rows, tuned: Sequence[Tuned], metric: str, shown: Sequence[str]
) -> Figure | None:
    """Return a panel for each option: the score over its values, for all methods that have it."""
    spaces: dict[str, list[Space]] = {}
    for one in tuned:
        for key, space in one.spaces.items():
            spaces.setdefault(key, []).append(space)
    panels, data = [], {}
    for place, (key, found) in enumerate(list(spaces.items())[: narrow.PANELS]):
        name = f"search-option-{place}"
        data[name] = [{**row, "x": row[f"x{key}"]} for row in rows if f"x{key}" in row]
        where = {"x": _values_axis(key, found, data[name]), "y": _score("m", metric, how)}
        layers = _dots(how, where, _tips(how))
        panels.append(Panel(key, {"data": {"name": name}, "height": 190, "layer": layers}))
    if not panels:
        return None
    about = f"The first {narrow.PANELS} of {len(spaces)}." if len(spaces) > narrow.PANELS else ""
    figure = Figure(
        "search-options",
        "search",
        "Score over each option's values",
        "Validation score of every trial; its other options differ as well, so a column of dots is "
        "no effect of one option alone.",
        panels,
        data,
        shown,
    )
    return noted([figure], about)[0]


def _values_axis(key: str, found: Sequence[Space], rows: Rows) -> Spec:
    """Return the axis of an option: of numbers if all its spaces are ranges, else of texts.

    It reaches from end to end of the spaces, so that one sees whether the best values are there.
    """
    if all(map(_is_range, found)) and all(isinstance(row["x"], int | float) for row in rows):
        log = all(space.search.scale == "log" for space in found)
        ends = [end for space in found for end in space.ends]
        shown = [row["x"] for row in rows if row["x"] > 0 or not log]  # a default may be 0
        kind: Spec = {"type": "log"} if log else {"zero": False}
        scale = {**kind, "domain": [min(*ends, *shown), max(*ends, *shown)], "nice": False}
        axis: Spec = {"grid": False, "format": "~g", "tickCount": 4}
        return {"field": "x", "type": "quantitative", "title": key, "scale": scale, "axis": axis}
    texts = list(dict.fromkeys(inline(c) for space in found for c in space.search.choices))
    texts += [row["x"] for row in rows if row["x"] not in texts]
    axis = {"grid": False, "labelAngle": 0}
    return {"field": "x", "type": "nominal", "title": key, "sort": texts, "axis": axis}


def _on_test(how: Look, rows: Rows, metric: str, shown: Sequence[str]) -> Figure | None:
    tested = [row for row in rows if "test" in row]
    if not tested:
        return None
    where: Spec = {
        "x": _score("m", f"validation {metric}", how),
        "y": _score("test", f"test {metric}", how),
    }
    tips = [*_tips(how), tip("test", "test", how.form)]
    spec = {
        "data": {"name": "search-test"},
        "height": 260,
        "layer": _dots(how, where, tips),
    }
    return Figure(
        "search-test",
        "search",
        "Validation and test score of every trial",
        "Of the search's own runs. The test scores were read after the search and chose nothing. "
        "If the large dots are not near the top, there is too little validation data to choose by.",
        [Panel("", spec, wide=True)],
        {"search-test": tested},
        shown,
    )
